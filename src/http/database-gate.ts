import { DatabaseTimeout, isUnavailable, isUnknownOutcome } from '../db/pool.js';
import type { Pulse } from '../db/pulse.js';
import { AppError } from '../errors.js';
import type { Bulkhead } from './bulkhead.js';

/** Runs work that asks the database: in bounded company, with a deadline, and with its outages told as 503. */
export type DatabaseGate = <T>(work: () => Promise<T>) => Promise<T>;

export interface DatabaseGateDeps {
  bulkhead: Bulkhead;
  /** The longest wait, for a place and for the answers together; PostgreSQL's own limits end sooner. */
  deadlineMs: number;
  pulse: Pick<Pulse, 'silentMs' | 'isIdle'>;
  /** Monotonic milliseconds. */
  now: () => number;
}

/** PostgreSQL has answered nobody for so long: nobody else is made to wait for it. */
const SILENT_MS = 2_000;
/** How often those who wait look whether it is still worth it. */
const LOOK_MS = 500;
/** While nothing is under way that could find out, one request in so long tries whether PostgreSQL is back. */
const PROBE_MS = 1_000;

/** Waits end with the deadline, or as soon as nobody is answered any more. */
export function createDatabaseGate(deps: DatabaseGateDeps): DatabaseGate {
  const { pulse, deadlineMs, now } = deps;
  let probed = Number.NEGATIVE_INFINITY;

  function isShut(): boolean {
    if (pulse.silentMs() < SILENT_MS) return false;
    if (!pulse.isIdle() || now() - probed < PROBE_MS) return true;
    probed = now();
    return false;
  }

  return async (work) => {
    if (isShut()) throw away(undefined);
    const left = new AbortController();
    const working = deps.bulkhead(work, left.signal);
    // Given up, it may still be rejected, with nobody left to hear of it.
    working.catch(() => undefined);
    const since = now();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const look = () => {
        const waited = now() - since;
        if (waited >= deadlineMs || pulse.silentMs() >= SILENT_MS) reject(new DatabaseTimeout(waited));
        else timer = setTimeout(look, Math.min(LOOK_MS, deadlineMs - waited));
      };
      timer = setTimeout(look, Math.min(LOOK_MS, deadlineMs));
    });
    try {
      return await Promise.race([working, late]);
    } catch (cause) {
      throw asRefusal(cause);
    } finally {
      clearTimeout(timer);
      left.abort();
    }
  };
}

const away = (cause: unknown) =>
  new AppError('database_unavailable', 'The database cannot be reached at the moment; nothing was changed.', {
    cause,
  });

/** An outage as AppError `database_unavailable`; anything else as it is. */
export function asRefusal(cause: unknown): unknown {
  if (cause instanceof AppError) return cause;
  if (isUnavailable(cause)) return away(cause);
  return isUnknownOutcome(cause) ? unconfirmed(cause) : cause;
}

/** What was asked for was done, or will be, or not: only PostgreSQL knows. */
export const unconfirmed = (cause: unknown) =>
  new AppError(
    'database_unavailable',
    'The database did not confirm in time, so it is not known whether this was done. Ask again, with the same Idempotency-Key if there was one.',
    { cause },
  );
