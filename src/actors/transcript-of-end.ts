import { packPart, type TranscriptOfEnd } from '../db/transcripts.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';

/** More than this would make `end` wait for its compression, and commits that wait for PostgreSQL grow. */
const SMALL_BYTES = 256 * 1024;

/** What the commit of an end in the run's own epoch stores: all that viewers got, where that is here and small. */
export async function transcriptOfEnd(
  pipeline: Pick<ThreadPipeline, 'held' | 'fanOut'>,
): Promise<TranscriptOfEnd> {
  const released = pipeline.fanOut.lastReleased();
  if (released === 0) return { part: null, incomplete: false };
  const frames = pipeline.held(0, SMALL_BYTES);
  const last = frames.at(-1);
  if (last === undefined || frames[0]?.number !== 1 || pipeline.held(last.number, 1).length > 0) {
    return { part: null, incomplete: true };
  }
  const part = await packPart(frames.map(({ number, bytes }) => ({ seq: number, bytes })));
  return { part, incomplete: false };
}
