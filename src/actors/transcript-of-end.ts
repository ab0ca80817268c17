import { packPart, type TranscriptOfEnd } from '../db/transcripts.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';

/** What the tries of a commit that ends a run in its own epoch store of what viewers got. */
interface TranscriptOfTries {
  /**
   * The first try takes all of it along, where it is here and small. Any other leaves it to what follows the commit:
   * commits that wait for PostgreSQL hold no frames (`guarantees.md` 17).
   */
  take(): TranscriptOfEnd;
  /** Whether the newest try left something out. */
  lacks(): boolean;
}

/** More than this would make `end` wait for its compression. */
const SMALL_BYTES = 256 * 1024;

export async function transcriptOfEnd(
  pipeline: Pick<ThreadPipeline, 'held' | 'fanOut'>,
): Promise<TranscriptOfTries> {
  let next = await wholeOf(pipeline);
  let { incomplete } = next;
  return {
    take() {
      const taken = next;
      incomplete = taken.incomplete;
      if (taken.part !== null) next = { part: null, incomplete: true };
      return taken;
    },
    lacks: () => incomplete,
  };
}

async function wholeOf(pipeline: Pick<ThreadPipeline, 'held' | 'fanOut'>): Promise<TranscriptOfEnd> {
  if (pipeline.fanOut.lastReleased() === 0) return { part: null, incomplete: false };
  const frames = pipeline.held(0, SMALL_BYTES);
  const last = frames.at(-1);
  if (last === undefined || frames[0]?.number !== 1 || pipeline.held(last.number, 1).length > 0) {
    return { part: null, incomplete: true };
  }
  const part = await packPart(frames.map(({ number, bytes }) => ({ seq: number, bytes })));
  return { part, incomplete: false };
}
