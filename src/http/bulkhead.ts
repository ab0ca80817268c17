import { AppError } from '../errors.js';

/** Runs work with bounded company. */
export type Bulkhead = <T>(work: () => Promise<T>) => Promise<T>;

/**
 * Lets `width` pieces of work run and `queue` wait; more are refused as `overloaded`. It is narrower than the
 * pool, so that requests never take the connections that commits of runs need: Slonik bounds no wait for a slot.
 */
export function createBulkhead(limits: { width: number; queue: number }): Bulkhead {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running >= limits.width) {
      if (waiting.length >= limits.queue) {
        throw new AppError('overloaded', 'Too many requests are waiting already.', { retryAfterSeconds: 1 });
      }
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}
