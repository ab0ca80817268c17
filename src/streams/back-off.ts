export interface BackOffOptions {
  /** Upper bound of the first delay, in ms. */
  baseMs: number;
  /** Upper bound of every delay, in ms. */
  maxMs: number;
  /** From 0 up to, not including, 1; `Math.random` outside tests. */
  random: () => number;
}

export interface BackOff {
  /** The delay before the next try, in ms; each call counts as one failure. */
  next(): number;
  /** After a success: the next delay is a first one again. */
  reset(): void;
}

/**
 * Delay in ms before the `retry`-th repetition (from 0): exponential with full jitter, anywhere from 0 to the bound, so that
 * a thousand callers that failed together do not come back together.
 */
export function backOffDelayMs(retry: number, { baseMs, maxMs, random }: BackOffOptions): number {
  return Math.floor(random() * Math.min(maxMs, baseMs * 2 ** retry));
}

export function createBackOff(options: BackOffOptions): BackOff {
  let failures = 0;
  return {
    next: () => backOffDelayMs(failures++, options),
    reset() {
      failures = 0;
    },
  };
}
