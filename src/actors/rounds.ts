import type { Logger } from '../telemetry/logger.js';

/** What is done again and again until the replica stops: no round begins before the one before it is over. */
export interface Rounds {
  /** Begins a round every so many milliseconds; one that fails is logged as `what`, and the next one comes all the same. */
  every(milliseconds: number, work: () => Promise<void>, what: string): void;
  /** Calls this every so many milliseconds, whatever else is under way. */
  tick(milliseconds: number, work: () => void): void;
  /** Begins nothing any more; resolves when the rounds that have begun are over. */
  stop(): Promise<void>;
}

/** Does the work; what it throws is logged as `what`. */
export async function guarded(
  log: Pick<Logger, 'warn'>,
  what: string,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    log.warn({ err: error }, what);
  }
}

export function createRounds({ log }: { log: Pick<Logger, 'warn'> }): Rounds {
  const timers: NodeJS.Timeout[] = [];
  const underWay = new Set<Promise<void>>();
  let stopped = false;
  return {
    every(milliseconds, work, what) {
      let busy = false;
      const round = () => {
        if (busy || stopped) return;
        busy = true;
        const working = guarded(log, what, work).finally(() => {
          busy = false;
          underWay.delete(working);
        });
        underWay.add(working);
      };
      timers.push(setInterval(round, milliseconds));
    },
    tick(milliseconds, work) {
      timers.push(setInterval(work, milliseconds));
    },
    async stop() {
      stopped = true;
      for (const timer of timers) clearInterval(timer);
      await Promise.all(underWay);
    },
  };
}
