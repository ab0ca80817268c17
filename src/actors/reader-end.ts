import type { LastFrames } from '../db/proposals.js';
import type { FanOut } from '../streams/fan-out.js';

export interface ReaderEndDeps {
  fanOut: Pick<FanOut, 'epoch' | 'lastReleased' | 'size'>;
  sleep: (milliseconds: number) => Promise<void>;
  /** Monotonic milliseconds. */
  now: () => number;
  isStopped: () => boolean;
}

/** Its socket brings what the owner's has brought already: more than this and the viewers are told of a hole. */
const CATCH_UP_MS = 1_000;

/** The highest number that the stored last frames do not bring themselves. */
function lastBefore(last: LastFrames): number {
  const numbers = new Set(last.frames.map(({ seq }) => seq));
  let number = (last.frames.at(-1)?.seq ?? 1) - 1;
  while (numbers.has(number)) number--;
  return number;
}

/**
 * The commit of the end may be known here before this replica's own socket has brought all that lies below it:
 * resolves when it has, or after 1 s (`guarantees.md` 18).
 */
export async function untilCaughtUp(deps: ReaderEndDeps, last: LastFrames): Promise<void> {
  const { fanOut } = deps;
  const before = lastBefore(last);
  const until = deps.now() + CATCH_UP_MS;
  const behind = () => fanOut.epoch() === last.epoch && fanOut.lastReleased() < before;
  while (fanOut.size() > 0 && behind() && !deps.isStopped() && deps.now() < until) await deps.sleep(5);
}
