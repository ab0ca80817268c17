import {
  createPool as createSlonikPool,
  type DatabasePool,
  type Interceptor,
  type QueryResultRow,
  SchemaValidationError,
} from 'slonik';
import { createPgDriver } from './pg-driver.js';
import type { Pulse } from './pulse.js';
import { named, nameOf, noRow } from './statement.js';

export {
  DatabaseTimeout,
  isContentError,
  isUnavailable,
  isUnknownOutcome,
  withDeadline,
} from './database-errors.js';
export { named } from './statement.js';

export interface PoolOptions {
  readonly url: string;
  readonly maximumPoolSize: number;
  readonly applicationName: string;
  /** Hears of every statement at its end: its name, its duration in seconds, and why it failed, where it did. */
  readonly onQuery?: OnQuery;
  /** Is told of everything that waits for PostgreSQL. */
  readonly pulse?: Pulse;
}

type OnQuery = (name: string, seconds: number, error: Error | null) => void;

const LOCK_TIMEOUT_MS = 3_000;
const STATEMENT_TIMEOUT_MS = 10_000;
const IDLE_IN_TRANSACTION_MS = 2_000;
const ANSWER_TIMEOUT_MS = 13_000;

/** The URL with the settings that Slonik has no option for; the server notices a dead peer within about 20 s. */
const urlWithSettings = (url: string, applicationName: string): string => {
  const parsed = new URL(url);
  const settings = [
    'timezone=UTC',
    'tcp_keepalives_idle=10',
    'tcp_keepalives_interval=5',
    'tcp_keepalives_count=2',
  ];
  const given = parsed.searchParams.get('options');
  parsed.searchParams.set('options', [given, ...settings.map((s) => `-c ${s}`)].filter(Boolean).join(' '));
  parsed.searchParams.set('application_name', applicationName);
  return parsed.toString();
};

/** Slonik leaves the checking of rows to an interceptor. */
const createRowParser = (): Interceptor => ({
  name: 'row-parser',
  transformRow: (context, actualQuery, row) => {
    if (!context.resultParser) return row;
    const parsed = context.resultParser.safeParse(row);
    if (!parsed.success) throw new SchemaValidationError(actualQuery, row, parsed.error.issues);
    return parsed.data as QueryResultRow;
  },
});

const createTimer = (onQuery: OnQuery): Interceptor => {
  const observe = (text: string, since: bigint | number, error: Error | null = null) =>
    onQuery(nameOf(text), Number(process.hrtime.bigint() - BigInt(since)) / 1e9, error);
  return {
    name: 'timer',
    afterQueryExecution: (context, query) => {
      observe(query.sql, context.queryInputTime);
      return null;
    },
    queryExecutionError: (context, query, error) => {
      observe(query.sql, context.queryInputTime, error);
      return null;
    },
  };
};

/** Fails at once where the server cannot be reached, rather than with the first statement. */
const probe = async (pool: DatabasePool): Promise<void> => {
  try {
    await pool.query(named('probe', noRow)`SELECT 1`);
  } catch (error) {
    await pool.end();
    throw error;
  }
};

/**
 * Opens the pool that all SQL but LISTEN and the heartbeat goes through.
 *
 * Times come back as RFC 3339 strings in UTC. A lost idle connection is dropped and never ends the process.
 * @throws what `pg` throws when the server cannot be reached (see `isUnavailable`)
 */
export const createPool = async (options: PoolOptions): Promise<DatabasePool> => {
  const pool = await createSlonikPool(urlWithSettings(options.url, options.applicationName), {
    connectionRetryLimit: 1,
    connectionTimeout: 3_000,
    idleInTransactionSessionTimeout: IDLE_IN_TRANSACTION_MS,
    idleTimeout: 60_000,
    interceptors: [createRowParser(), ...(options.onQuery ? [createTimer(options.onQuery)] : [])],
    maximumPoolSize: options.maximumPoolSize,
    // No statement here leaves anything behind in its session, so the DISCARD ALL per release is saved.
    resetConnection: async () => {},
    statementTimeout: STATEMENT_TIMEOUT_MS,
    driverFactory: createPgDriver({
      lockTimeoutMs: LOCK_TIMEOUT_MS,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
      pulse: options.pulse,
    }),
  });
  await probe(pool);
  pool.on('error', () => undefined);
  return pool;
};
