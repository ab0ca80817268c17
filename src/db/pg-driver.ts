import pg from 'pg';
import {
  BackendTerminatedError,
  ConnectionError,
  createDriverFactory,
  type DriverFactory,
  type DriverQueryResult,
} from 'slonik';
import { DatabaseTimeout } from './database-errors.js';
import type { Pulse } from './pulse.js';
import { nameOf } from './statement.js';

const INT8 = 20;
const TIMESTAMPTZ = 1184;

/** Counts and beats stay far below 2^53; times become RFC 3339 in UTC. */
const typeParserOf = (oid: number) => {
  if (oid === INT8) return Number;
  if (oid === TIMESTAMPTZ) return (value: string) => new Date(value).toISOString();
  return pg.types.getTypeParser(oid);
};

const LOST = /connection terminated|not queryable|client was closed/i;
const LOST_CODES = new Set(['57P01', '57P02', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT']);

export interface PgDriverOptions {
  readonly lockTimeoutMs: number;
  /** Our own deadline of a statement: longer than the server's, for a server that is frozen. */
  readonly answerTimeoutMs: number;
  readonly pulse?: Pulse | undefined;
}

const toDriverError = (error: unknown, options: PgDriverOptions): Error => {
  if (!(error instanceof Error)) return new Error(String(error));
  const code = 'code' in error ? String(error.code) : '';
  if (error.message === 'Query read timeout') return new DatabaseTimeout(options.answerTimeoutMs);
  return LOST.test(error.message) || LOST_CODES.has(code) ? new BackendTerminatedError(error) : error;
};

/** What `pg` says of a server that was silent for too long. */
const SILENT = /^(Query read timeout|timeout expired)/;

/** Tells the pulse of something that waits for PostgreSQL. Any end but a silent one is an answer. */
const watched = async <T>(pulse: Pulse | undefined, work: () => Promise<T>): Promise<T> => {
  const ended = pulse?.sent();
  try {
    const result = await work();
    ended?.(true);
    return result;
  } catch (error) {
    ended?.(!(error instanceof Error && SILENT.test(error.message)));
    throw error;
  }
};

/** Texts that are prepared; a text is a template of ours, so there are about a hundred. */
const PREPARED_TEXTS = 500;

/**
 * Under which name a text is prepared on each connection: its statement's, and a number, since a part that is left
 * out makes another text of the same statement. Undefined for Slonik's own.
 */
const createPreparedNames = (): ((text: string) => string | undefined) => {
  const names = new Map<string, string>();
  return (text) => {
    const known = names.get(text);
    const statement = nameOf(text);
    if (known !== undefined || statement === 'other' || names.size >= PREPARED_TEXTS) return known;
    const name = `${statement}_${names.size}`;
    names.set(text, name);
    return name;
  };
};

/**
 * The driver between Slonik and `pg`. Slonik's own loses a slot of its pool for good whenever a connection breaks
 * under a running statement (the client's `error` event makes it destroy the connection, which then fails with the
 * statement's rejection and stays in the list). Here a break under a statement is told by that statement alone.
 * A connection that cannot be made is told by its first statement: the pool forgets those who wait behind a connect that
 * fails, until somebody else comes, but goes on to the next of them where a connection is destroyed.
 * It also sets what Slonik's has no option for: `lock_timeout`, TCP keep-alive, a deadline for the answer; and it
 * leaves SQLSTATEs on the errors. Our statements are prepared, so that each connection parses and plans a text once:
 * that was half to four fifths of PostgreSQL's work for them.
 */
export const createPgDriver = (options: PgDriverOptions): DriverFactory =>
  createDriverFactory(async ({ driverConfiguration: configuration }) => {
    const milliseconds = (value: 'DISABLE_TIMEOUT' | number) => (value === 'DISABLE_TIMEOUT' ? 0 : value);
    const preparedName = createPreparedNames();
    const clientConfiguration: pg.ClientConfig = {
      connectionString: configuration.connectionUri,
      connectionTimeoutMillis: milliseconds(configuration.connectionTimeout),
      idle_in_transaction_session_timeout: milliseconds(configuration.idleInTransactionSessionTimeout),
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      lock_timeout: options.lockTimeoutMs,
      query_timeout: options.answerTimeoutMs,
      statement_timeout: milliseconds(configuration.statementTimeout),
      types: { getTypeParser: typeParserOf as pg.CustomTypesConfig['getTypeParser'] },
    };
    return {
      createPoolClient: async ({ clientEventEmitter }) => {
        const client = new pg.Client(clientConfiguration);
        let running = 0;
        let unmade: ConnectionError | null = null;
        client.on('error', (error) => {
          if (running === 0 && unmade === null)
            clientEventEmitter.emit('error', toDriverError(error, options));
        });
        return {
          connect: async () => {
            running += 1;
            try {
              await watched(options.pulse, () => client.connect());
            } catch (error) {
              const cause = toDriverError(error, options);
              unmade = new ConnectionError(cause.message, { cause });
            }
            running -= 1;
          },
          end: async () => {
            const ended = client.end();
            // Nobody says goodbye to who never came in.
            if (unmade === null) await ended;
            else ended.catch(() => undefined);
          },
          query: async (text, values) => {
            if (unmade !== null) throw unmade;
            running += 1;
            const name = preparedName(text);
            try {
              const result = await watched(options.pulse, () =>
                client.query<Record<string, unknown>>({ text, values, ...(name ? { name } : {}) }),
              );
              return {
                command: result.command as DriverQueryResult['command'],
                fields: result.fields.map(({ dataTypeID, name }) => ({ dataTypeId: dataTypeID, name })),
                rowCount: result.rowCount,
                rows: result.rows,
              };
            } catch (error) {
              throw toDriverError(error, options);
            } finally {
              running -= 1;
            }
          },
          stream: () => {
            throw new Error('this driver streams no rows');
          },
        };
      },
    };
  });
