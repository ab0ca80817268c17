import { BackendTerminatedError, ConnectionError } from 'slonik';

/** No answer from PostgreSQL within our own deadline: a frozen backend or a dead network. The commit may have happened. */
export class DatabaseTimeout extends Error {
  readonly code = 'database_timeout';
  constructor(milliseconds: number) {
    super(`PostgreSQL did not answer within ${milliseconds} ms`);
    this.name = 'DatabaseTimeout';
  }
}

const codeOf = (error: unknown): string => {
  if (typeof error !== 'object' || error === null) return '';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return 'cause' in error ? codeOf(error.cause) : '';
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : '');

/** SQLSTATEs and system errors after which a statement may have been committed without our hearing of it, or may be
 * tried again as it was: lost connections, a server that stops, and cancellations by lock or statement timeout. */
const UNKNOWN =
  /^(08|40|55P03$|57014$|57P01$|57P02$|57P05$|25P03$|25P04$|ECONNRESET$|EPIPE$|ETIMEDOUT$|ECONNABORTED$)/;
const UNAVAILABLE =
  /^(ECONNREFUSED|ENOENT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|53300|53400|57P03|08001|08004)$/;
const UNSENT_MESSAGE = /timeout expired|connection timeout|Connection pool (is being|has been|has ended)/i;

/** True where nothing was sent: no connection could be made, no slot is free, the server or the pool is going down. */
export const isUnavailable = (error: unknown): boolean =>
  error instanceof ConnectionError ||
  UNAVAILABLE.test(codeOf(error)) ||
  UNSENT_MESSAGE.test(messageOf(error)) ||
  (error instanceof AggregateError && error.errors.some(isUnavailable));

/** True where the outcome has to be looked up by the transition's id before anything is concluded (`guarantees.md` 2).
 * Includes what certainly was not committed but may be decided again: lock and statement timeouts, serialization. */
export const isUnknownOutcome = (error: unknown): boolean =>
  !isUnavailable(error) &&
  (error instanceof DatabaseTimeout ||
    error instanceof BackendTerminatedError ||
    UNKNOWN.test(codeOf(error)) ||
    /connection terminated|not queryable|Client (is|was) (pending destroy|destroyed|closed)/i.test(
      messageOf(error),
    ));

/** True for a refusal of the content itself (SQLSTATE class 22, 23 or 54): the same statement will never succeed. */
export const isContentError = (error: unknown): boolean => /^(22|23|54)...$/.test(codeOf(error));

/** True where a row with the same key is there already: where the key is the statement's own, perhaps from its earlier try. */
export const isDuplicate = (error: unknown): boolean => codeOf(error) === '23505';

/** Rejects with {@link DatabaseTimeout} when `promise` has not settled after `milliseconds`. The statement goes on in
 * PostgreSQL; whoever calls treats the outcome as unknown. */
export const withDeadline = async <T>(promise: Promise<T>, milliseconds: number): Promise<T> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DatabaseTimeout(milliseconds)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    // A rejection after the deadline has no listener left and must not end the process.
    promise.catch(() => undefined);
  }
};
