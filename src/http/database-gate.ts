import { isUnavailable, isUnknownOutcome, withDeadline } from '../db/pool.js';
import { AppError } from '../errors.js';
import type { Bulkhead } from './bulkhead.js';

/** Runs work that asks the database: in bounded company, with a deadline, and with its outages told as 503. */
export type DatabaseGate = <T>(work: () => Promise<T>) => Promise<T>;

/** `deadlineMs` bounds what a frozen backend could hold up for ever; PostgreSQL's own limits end sooner. */
export function createDatabaseGate(deps: { bulkhead: Bulkhead; deadlineMs: number }): DatabaseGate {
  return async (work) => {
    try {
      return await deps.bulkhead(() => withDeadline(work(), deps.deadlineMs));
    } catch (cause) {
      throw asRefusal(cause);
    }
  };
}

/** An outage as AppError `database_unavailable`; anything else as it is. */
export function asRefusal(cause: unknown): unknown {
  if (cause instanceof AppError) return cause;
  if (isUnavailable(cause)) {
    return new AppError(
      'database_unavailable',
      'The database cannot be reached at the moment; nothing was changed.',
      {
        cause,
      },
    );
  }
  if (isUnknownOutcome(cause)) {
    return new AppError(
      'database_unavailable',
      'The database did not confirm in time, so it is not known whether this was done. Ask again, with the same Idempotency-Key if there was one.',
      { cause },
    );
  }
  return cause;
}
