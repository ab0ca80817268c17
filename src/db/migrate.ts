import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { withConnection } from './brief-connection.js';
import { named } from './statement.js';

/** Seen from the compiled file, dist/src/db/. */
const FOLDER = fileURLToPath(new URL('../../../sql', import.meta.url));
const TABLE = 'schema_migrations';
/** Ours alone: the runtime may migrate another database of the same server at the same time. */
const LOCK = 7_241_865_001;

const CONNECT_MS = 10_000;

const noLog = () => undefined;

/**
 * Applies what is missing of `sql/`, in order, in one transaction. Of several processes one works, the others wait.
 *
 * @param url of the database
 * @returns the names of the migrations that were applied
 */
export const migrate = (url: string): Promise<string[]> =>
  // A connection of the runner's own has no listener for errors.
  withConnection({ connectionString: url, connectionTimeoutMillis: CONNECT_MS }, async (dbClient) => {
    const applied = await runner({
      dbClient,
      dir: FOLDER,
      direction: 'up',
      migrationsTable: TABLE,
      advisoryLockMode: 'wait',
      lockValue: LOCK,
      checkOrder: true,
      logger: { debug: noLog, info: noLog, warn: noLog, error: noLog },
    });
    return applied.map((migration) => migration.name);
  });

/** How many migrations the database lacks; 0 = ready. */
export const pendingMigrations = async (db: CommonQueryMethods): Promise<number> => {
  const files = (await readdir(FOLDER))
    .filter((name) => name.endsWith('.sql'))
    .map((name) => name.slice(0, -4));
  const exists = await db.oneFirst(named('migrations_table', z.object({ exists: z.boolean() }))`
    SELECT to_regclass(${`public.${TABLE}`}) IS NOT NULL AS exists`);
  if (!exists) return files.length;
  const applied = new Set(
    await db.anyFirst(named('applied_migrations', z.object({ name: z.string() }))`
      SELECT name FROM ${sql.identifier([TABLE])}`),
  );
  return files.filter((name) => !applied.has(name)).length;
};
