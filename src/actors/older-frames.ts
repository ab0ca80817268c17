import { setImmediate as turn } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import { readTranscriptPart } from '../db/transcripts.js';
import type { OlderFrames } from '../streams/older-frames.js';
import type { NumberedFrame } from '../streams/replay-window.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import type { Logger } from '../telemetry/logger.js';

interface OlderFramesDeps {
  db: CommonQueryMethods;
  runtimeLog: RuntimeLog;
  proposalId: string;
  /** The run of now, as the runtime names it. */
  run: () => { attempt: number; threadId: string };
  /** The row has ended: no viewer's need opens a stream any more (`guarantees.md` 18). */
  isFinal: () => boolean;
  isStopped: () => boolean;
  sleep: (milliseconds: number) => Promise<void>;
  /** Monotonic milliseconds. */
  now: () => number;
  log: Pick<Logger, 'warn'>;
}

interface Missing {
  epoch: string;
  after: number;
  upTo: number;
}

interface Piece {
  epoch: string;
  frames: readonly NumberedFrame[];
}

const PIECE_BYTES = 256 * 1024;
/** How long a viewer waits for a runtime that is away, the database, or a transcript that is still being completed. */
const WAIT_MS = 3_000;
const LOOK_AGAIN_MS = 100;
/** What was read is kept for those that ask for the same: viewers often come many at once. */
const KEPT_MS = 5_000;

/**
 * While the run lives, older frames come from the runtime's log; once its row is final, from the transcript alone. One
 * read of a thread is under way at a time, and one piece of it, or part of its transcript, is in memory.
 */
export function createOlderFrames(deps: OlderFramesDeps): OlderFrames {
  let tail: Promise<unknown> = Promise.resolve();
  let kept: Piece | null = null;
  let forgetting: NodeJS.Timeout | undefined;
  /** The epoch of which the runtime has said that it cannot be had from it. */
  let gone: string | null = null;

  function keep(piece: Piece): readonly NumberedFrame[] {
    kept = piece;
    clearTimeout(forgetting);
    forgetting = setTimeout(() => {
      kept = null;
    }, KEPT_MS).unref();
    return piece.frames;
  }

  /** Null where the same question may have another answer in a moment. */
  async function askRuntime({ epoch, after, upTo }: Missing): Promise<readonly NumberedFrame[] | null> {
    const { attempt, threadId } = deps.run();
    if (epoch === gone || !epoch.startsWith(`${attempt}.`)) return [];
    const { frames, rest } = await deps.runtimeLog.read({ threadId, epoch, after, upTo }, PIECE_BYTES);
    if (rest === 'gone') gone = epoch;
    return rest === 'away' ? null : keep({ epoch, frames });
  }

  async function askTranscript(
    { epoch, after }: Missing,
    late: boolean,
  ): Promise<readonly NumberedFrame[] | null> {
    const { proposalId } = deps;
    const part = await readTranscriptPart(deps.db, { proposalId, epoch, after });
    const frames = part.frames.map(({ seq, bytes }) => ({ number: seq, bytes }));
    return part.incomplete && !late && !goOn(frames, after) ? null : keep({ epoch, frames });
  }

  async function find(missing: Missing, until: number): Promise<readonly NumberedFrame[]> {
    const { epoch, after } = missing;
    if (kept?.epoch === epoch && goOn(kept.frames, after)) return behind(kept.frames, missing);
    while (!deps.isStopped()) {
      const late = deps.now() >= until;
      try {
        const found = await (deps.isFinal() ? askTranscript(missing, late) : askRuntime(missing));
        if (found !== null) return behind(found, missing);
      } catch (error) {
        if (late) deps.log.warn({ err: error }, 'older frames could not be read');
      }
      if (late) break;
      await deps.sleep(LOOK_AGAIN_MS);
    }
    return [];
  }

  return {
    read(epoch, after, upTo) {
      const until = deps.now() + WAIT_MS;
      const found = tail.then(() => find({ epoch, after, upTo }, until));
      // Each in a turn of its own: a kept piece may be there for a thousand viewers.
      tail = found.then(() => turn());
      return found;
    },
  };
}

/** Whether the frames hold the next number, or what follows a hole at it. */
function goOn(frames: readonly NumberedFrame[], after: number): boolean {
  const [first, last] = [frames[0], frames.at(-1)];
  return first !== undefined && last !== undefined && first.number <= after + 1 && last.number > after;
}

function behind(frames: readonly NumberedFrame[], { after, upTo }: Missing): readonly NumberedFrame[] {
  const piece: NumberedFrame[] = [];
  let size = 0;
  for (const frame of frames) {
    if (frame.number <= after) continue;
    if (frame.number > upTo || size >= PIECE_BYTES) break;
    piece.push(frame);
    size += frame.bytes.length;
  }
  return piece;
}
