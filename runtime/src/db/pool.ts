import pg from 'pg';
import type { Logger } from '../telemetry/logger.js';

/**
 * A pool whose connections bound their statements and locks, and whose idle connections may be
 * terminated without taking the process with them (an unheard `error` event would).
 */
export function createPool(
  deps: { logger: Logger },
  options: { databaseUrl: string; size: number; name: string },
): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.databaseUrl,
    max: options.size,
    application_name: `deepagents-runtime ${options.name}`,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 60_000,
    // Who comes after a pause does not wait for a handshake.
    min: Math.min(2, options.size),
    statement_timeout: 10_000,
    // The server's timeout does not fire when the server is frozen or unreachable.
    query_timeout: 15_000,
    idle_in_transaction_session_timeout: 2_000,
    lock_timeout: 3_000,
    keepAlive: true,
  });
  pool.on('error', (error) => deps.logger.warn({ err: error, pool: options.name }, 'idle connection lost'));
  return pool;
}
