import { setTimeout as wait } from 'node:timers/promises';
import type { Config } from '../config.js';
import { backOffDelayMs } from '../streams/back-off.js';

export interface PausesDeps {
  runs: Pick<Config['runs'], 'reconnectBaseMs' | 'reconnectMaxMs' | 'retryBaseMs' | 'retryMaxMs'>;
  random: () => number;
}

/** How long the threads of a replica wait before they try again. */
export interface Pauses {
  /** Ends early, without an error, where the signal says so; keeps no process alive. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** Milliseconds before the next call or commit, after so many that got no answer. */
  awayDelayMs(failures: number): number;
  /** Milliseconds between this attempt and the next. */
  retryDelayMs(attempt: number): number;
}

/** The jitter may say 0, and what fails at once would be tried again without a pause. */
const LEAST_AWAY_MS = 10;

export function createPauses({ runs, random }: PausesDeps): Pauses {
  return {
    async sleep(milliseconds, signal) {
      await wait(milliseconds, undefined, signal ? { signal, ref: false } : { ref: false }).catch(
        () => undefined,
      );
    },
    awayDelayMs: (failures) =>
      LEAST_AWAY_MS +
      backOffDelayMs(failures, { baseMs: runs.reconnectBaseMs, maxMs: runs.reconnectMaxMs, random }),
    retryDelayMs: (attempt) =>
      backOffDelayMs(attempt - 1, { baseMs: runs.retryBaseMs, maxMs: runs.retryMaxMs, random }),
  };
}
