import type { CommonQueryMethods } from 'slonik';
import { type LastFrames, readLastFrames } from '../db/proposals.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Logger } from '../telemetry/logger.js';

export interface StoredEndDeps {
  db: CommonQueryMethods;
  proposalId: string;
  pipeline: Pick<ThreadPipeline, 'fanOut' | 'finish' | 'finished'>;
  sleep: (milliseconds: number) => Promise<void>;
  /** Milliseconds before the next try, after so many. */
  delayMs: (failures: number) => number;
  /** Monotonic milliseconds. */
  now: () => number;
  isStopped: () => boolean;
  log: Pick<Logger, 'warn'>;
}

/** The end of a thread that this replica did not make itself: the last frames that are stored with its row. */
export interface StoredEnd {
  /** Gives them to the viewers; resolves when that is done, or there are none. */
  tell(): Promise<void>;
  /** Nothing of the end is left to be told. */
  isTold(): boolean;
  /** Resolves when this replica's own socket has brought all that lies below the end; false where somebody waits already. */
  caughtUp(): Promise<boolean>;
}

/** Its socket brings what the owner's has brought already: more than this and the viewers are told of a hole. */
const CATCH_UP_MS = 1_000;

export function createStoredEnd(deps: StoredEndDeps): StoredEnd {
  const { pipeline, log } = deps;
  const read = () => readLastFrames(deps.db, { proposalId: deps.proposalId });
  let catchingUp = false;
  let told = false;

  return {
    isTold: () => told,
    async tell() {
      for (let failures = 0; !deps.isStopped() && !pipeline.finished(); failures++) {
        try {
          const last = await read();
          if (last === null || pipeline.finished()) break;
          const frames = last.frames.map(({ seq, bytes }) => ({ number: seq, bytes }));
          pipeline.finish({ epoch: last.epoch, frames });
        } catch (error) {
          log.warn({ err: error }, 'the last frames could not be read');
          await deps.sleep(deps.delayMs(failures));
        }
      }
      told = true;
    },
    async caughtUp() {
      if (catchingUp) return false;
      catchingUp = true;
      try {
        const last = await read();
        if (last !== null) await untilCaughtUp({ ...deps, fanOut: pipeline.fanOut }, last);
      } catch (error) {
        log.warn({ err: error }, 'the last frames could not be read');
      }
      catchingUp = false;
      return true;
    },
  };
}

/**
 * The commit of the end may be known here before this replica's own socket has brought all that lies below it:
 * resolves when it has, or after 1 s (`guarantees.md` 18).
 */
export async function untilCaughtUp(
  deps: Pick<StoredEndDeps, 'sleep' | 'now' | 'isStopped'> & {
    fanOut: Pick<ThreadPipeline['fanOut'], 'epoch' | 'lastReleased' | 'size'>;
  },
  last: LastFrames,
): Promise<void> {
  const { fanOut } = deps;
  const before = lastBefore(last);
  const until = deps.now() + CATCH_UP_MS;
  const behind = () => fanOut.epoch() === last.epoch && fanOut.lastReleased() < before;
  while (fanOut.size() > 0 && behind() && !deps.isStopped() && deps.now() < until) await deps.sleep(5);
}

/** The highest number that the stored last frames do not bring themselves. */
function lastBefore(last: LastFrames): number {
  const numbers = new Set(last.frames.map(({ seq }) => seq));
  let number = (last.frames.at(-1)?.seq ?? 1) - 1;
  while (numbers.has(number)) number--;
  return number;
}
