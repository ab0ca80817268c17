import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import pg from 'pg';
import { toError } from '../errors.js';
import type { Logger } from '../telemetry/logger.js';
import { sqlStateOf } from './database-faults.js';

const migrations = fileURLToPath(new URL('../../../sql', import.meta.url));

/**
 * Creates the database where it is missing and the role may, then brings its schema up to date.
 * Several processes may do so at once.
 * @throws whatever PostgreSQL says: without its database the runtime cannot start.
 */
export async function prepareDatabase({ logger }: { logger: Logger }, databaseUrl: string): Promise<void> {
  await createIfMissing(databaseUrl, logger);
  await runner({
    databaseUrl,
    dir: migrations,
    migrationsTable: 'runtime_migrations',
    direction: 'up',
    // The default fails at once when another process migrates.
    advisoryLockMode: 'wait',
    logger: {
      debug: () => {},
      info: (message) => logger.debug({ migration: message }, 'migrating'),
      warn: (message) => logger.warn({ migration: message }, 'migrating'),
      error: (message) => logger.error({ migration: message }, 'migrating'),
    },
  });
}

async function createIfMissing(databaseUrl: string, logger: Logger): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 5_000 });
  try {
    await client.connect();
  } catch (thrown) {
    // 3D000: the server is there, the database is not.
    if (sqlStateOf(thrown) !== '3D000') throw toError(thrown);
    await createDatabase(databaseUrl);
    logger.info('database created');
  } finally {
    await client.end().catch(() => {});
  }
}

async function createDatabase(databaseUrl: string): Promise<void> {
  const url = new URL(databaseUrl);
  const name = decodeURIComponent(url.pathname.slice(1));
  url.pathname = '/postgres';
  const client = new pg.Client({ connectionString: url.href, connectionTimeoutMillis: 5_000 });
  await client.connect();
  try {
    await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`);
  } catch (thrown) {
    // Another process was faster: 42P04 where it had finished, 23505 where it was about to.
    if (!['42P04', '23505'].includes(sqlStateOf(thrown) ?? '')) throw toError(thrown);
  } finally {
    await client.end();
  }
}
