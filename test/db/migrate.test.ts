import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { ensureDatabase } from '../../src/db/ensure-database.js';
import { migrate, pendingMigrations } from '../../src/db/migrate.js';
import { createPool } from '../../src/db/pool.js';
import { createEmptyDatabase } from '../support/database.js';

t.test('of three migrators at once one works and the others wait', async (t) => {
  const { url } = await createEmptyDatabase(t);
  const pool = await createPool({ url, maximumPoolSize: 1, applicationName: 'test' });
  const all = await pendingMigrations(pool);
  t.ok(all >= 3, 'without the table everything is pending');
  const applied = await Promise.all([migrate(url), migrate(url), migrate(url)]);
  t.same(applied.map((names) => names.length).sort(), [0, 0, all]);
  t.equal(applied.flat()[0], '000001_workflows');
  t.equal(await pendingMigrations(pool), 0);
  await pool.end();
});

t.test('a migrator whose connection is cut off is told so, and the process lives on', async (t) => {
  const { url } = await createEmptyDatabase(t);
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('SELECT pg_advisory_lock($1)', [7_241_865_001]);
  const migrating = t.rejects(migrate(url), /terminat/i);
  const waiting = `
    SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()`;
  while ((await holder.query(waiting)).rowCount === 0) await wait(10);
  await migrating;
  await holder.query('SELECT pg_advisory_unlock_all()');
  t.ok((await migrate(url)).length > 0, 'the next one does the work');
});

t.test('a missing database is created, once, by whoever comes first', async (t) => {
  const { url } = await createEmptyDatabase(t, false);
  const made = await Promise.all([ensureDatabase(url), ensureDatabase(url)]);
  t.equal(made.filter(Boolean).length, 1);
  t.equal(await ensureDatabase(url), false);
});

t.test('a role that may not create a database is told so', async (t) => {
  const { url } = await createEmptyDatabase(t, false);
  const poor = new URL(url);
  poor.username = `poor_${randomUUID().slice(0, 8)}`;
  const server = new URL(url);
  server.pathname = '/postgres';
  const admin = new pg.Client({ connectionString: server.toString() });
  await admin.connect();
  poor.password = randomUUID();
  await admin.query(`CREATE ROLE ${poor.username} LOGIN PASSWORD '${poor.password}'`);
  await t.rejects(ensureDatabase(poor.toString()), { code: '42501' });
  poor.port = '1';
  await t.rejects(ensureDatabase(poor.toString()), { code: 'ECONNREFUSED' });
  await admin.query(`DROP ROLE ${new URL(poor).username}`);
  await admin.end();
});

t.test('every foreign key has an index that begins with its columns', async (t) => {
  const { url } = await createEmptyDatabase(t);
  await migrate(url);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(`
    SELECT c.conrelid::regclass || '.' || c.conname AS missing FROM pg_constraint c
    WHERE c.contype = 'f' AND NOT EXISTS (
      SELECT 1 FROM pg_index i
      WHERE i.indrelid = c.conrelid
        AND (SELECT array_agg(k ORDER BY k) FROM unnest(c.conkey) k)
          = (SELECT array_agg(k ORDER BY k) FROM unnest((i.indkey::int2[])[0:array_length(c.conkey, 1) - 1]) k))`);
  const { rows: untyped } = await client.query(`
    SELECT table_name || '.' || column_name AS column FROM information_schema.columns
    WHERE table_schema = 'public' AND data_type = 'timestamp without time zone' AND table_name <> 'schema_migrations'`);
  await client.end();
  t.same(rows, []);
  t.same(untyped, [], 'and every time has its zone');
});
