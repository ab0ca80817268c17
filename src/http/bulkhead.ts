import { AppError } from '../errors.js';

/** Runs work with bounded company. Whoever leaves by `left` while it waits for a place never runs. */
export type Bulkhead = <T>(work: () => Promise<T>, left?: AbortSignal) => Promise<T>;

/**
 * Lets `width` pieces of work run and `queue` wait; more are refused as `overloaded`. It is narrower than the
 * pool, so that requests never take the connections that commits of runs need: Slonik bounds no wait for a slot.
 */
export function createBulkhead(limits: { width: number; queue: number }): Bulkhead {
  let running = 0;
  const waiting = new Set<() => void>();

  function place(left: AbortSignal | undefined): Promise<void> {
    if (running < limits.width) {
      running += 1;
      return Promise.resolve();
    }
    if (waiting.size >= limits.queue) {
      throw new AppError('overloaded', 'Too many requests are waiting already.', { retryAfterSeconds: 1 });
    }
    return new Promise<void>((resolve, reject) => {
      waiting.add(resolve);
      left?.addEventListener('abort', () => {
        if (waiting.delete(resolve)) reject(left.reason);
      });
    });
  }

  return async (work, left) => {
    await place(left);
    try {
      return await work();
    } finally {
      const [next] = waiting;
      if (next === undefined) running -= 1;
      else {
        waiting.delete(next);
        next();
      }
    }
  };
}
