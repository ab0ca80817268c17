import { createHash, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { DatabasePool } from 'slonik';
import { migrate } from '../../src/db/migrate.js';
import { createPool } from '../../src/db/pool.js';
import { until } from './until.js';

/** The part of a tap test that is needed here. */
interface Owner {
  teardown(handler: () => Promise<void>): void;
}

export interface TestDatabase {
  readonly url: string;
  /** Ended by the teardown. */
  readonly pool: DatabasePool;
}

const FOLDER = fileURLToPath(new URL('../../../sql', import.meta.url));
const TEMPLATE_LOCK = 8_364_201;
/** A backend that sleeps in a statement of its own goes when that has ended. */
const LEAVING_MS = 20_000;

const serverUrl = (): string => {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error('TEST_DATABASE_URL names no PostgreSQL server; the suite starts one and sets it');
  return url;
};

const urlOf = (name: string): string => {
  const url = new URL(serverUrl());
  url.pathname = `/${name}`;
  return url.toString();
};

const onServer = async <T>(work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: urlOf('postgres') });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

const templateName = async (): Promise<string> => {
  const hash = createHash('sha256');
  for (const file of (await readdir(FOLDER)).sort())
    hash.update(file).update(await readFile(`${FOLDER}/${file}`));
  return `template_${hash.digest('hex').slice(0, 16)}`;
};

/** The migrated database that all others are cloned from; the first test file of a suite run makes it. */
const ensureTemplate = async (client: pg.Client): Promise<string> => {
  const name = await templateName();
  await client.query('SELECT pg_advisory_lock($1)', [TEMPLATE_LOCK]);
  try {
    const { rows } = await client.query('SELECT datistemplate FROM pg_database WHERE datname = $1', [name]);
    // Only a finished template is marked as one: a run that was killed on the way leaves the mark out.
    if (rows[0]?.datistemplate) return name;
    if (rows.length === 0) await client.query(`CREATE DATABASE ${name}`);
    await migrate(urlOf(name));
    await client.query(`ALTER DATABASE ${name} IS_TEMPLATE true`);
    return name;
  } finally {
    await client.query('SELECT pg_advisory_unlock($1)', [TEMPLATE_LOCK]);
  }
};

const connectionsTo = async (client: pg.Client, name: string): Promise<string[]> =>
  (
    await client.query(
      `SELECT application_name || ': ' || query AS line FROM pg_stat_activity
       WHERE datname = $1 AND backend_type = 'client backend'`,
      [name],
    )
  ).rows.map((row: { line: string }) => row.line);

const dropDatabase = (name: string): Promise<void> =>
  onServer(async (client) => {
    let open: string[] = [];
    // A closed connection's backend needs a moment to go.
    await until(async () => {
      open = await connectionsTo(client, name);
      return open.length === 0;
    }, LEAVING_MS);
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    if (open.length > 0)
      throw new Error(`connections to the test's database were left open: ${open.join(' | ')}`);
  });

/** An empty database with a name of its own, without any table; dropped by the teardown. */
export const createEmptyDatabase = async (owner: Owner, create = true): Promise<{ url: string }> => {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  if (create) await onServer((client) => client.query(`CREATE DATABASE ${name}`));
  owner.teardown(() => dropDatabase(name));
  return { url: urlOf(name) };
};

/**
 * A migrated database of the test's own, cloned from a template. The teardown ends its pool, fails the test where
 * another connection was left open, and drops the database.
 */
export const createTestDatabase = async (
  owner: Owner,
  options: { maximumPoolSize?: number } = {},
): Promise<TestDatabase> => {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await onServer(async (client) => {
    const template = await ensureTemplate(client);
    // Copying the files is a tenth of the work of logging each page, on a server that syncs nothing.
    await client.query(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY = FILE_COPY`);
  });
  const url = urlOf(name);
  const pool = await createPool({
    url,
    maximumPoolSize: options.maximumPoolSize ?? 10,
    applicationName: 'test',
  });
  owner.teardown(async () => {
    await pool.end();
    await dropDatabase(name);
  });
  return { url, pool };
};
