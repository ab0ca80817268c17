import { setTimeout as sleep } from 'node:timers/promises';
import { isPassing } from '../db/database-faults.js';

/** Thrown out of a wait for PostgreSQL when the process stops: what was not written is left to the next one. */
export class StoppedError extends Error {
  constructor() {
    super('the process stops');
    this.name = 'StoppedError';
  }
}

/**
 * Repeats a statement until PostgreSQL answers it, with back-off from 50 ms to 1 s.
 * @throws {StoppedError} when the signal fires first; a refusal of the statement or its content as it came.
 */
export async function untilAnswered<T>(
  statement: () => Promise<T>,
  signal: AbortSignal,
  onWait: (error: unknown) => void = () => {},
): Promise<T> {
  for (let pause = 50; ; pause = Math.min(1_000, pause * 2)) {
    try {
      return await statement();
    } catch (thrown) {
      if (!isPassing(thrown)) throw thrown;
      // Only now: a process that stops still writes what it can.
      if (signal.aborted) throw new StoppedError();
      onWait(thrown);
    }
    await sleep(pause, undefined, { signal }).catch(() => {});
  }
}
