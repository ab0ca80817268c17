import type { CommonQueryMethods } from 'slonik';
import type { StoredFrame } from '../db/stored-bytes.js';
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

interface UnpackedPart {
  epoch: string;
  frames: readonly StoredFrame[];
}

const PIECE_BYTES = 256 * 1024;
/** How long a viewer waits for a runtime that is away, the database, or a transcript that is still being completed. */
const WAIT_MS = 3_000;
const LOOK_AGAIN_MS = 100;
/** An unpacked part is kept for the next read of it. */
const KEPT_MS = 5_000;

/**
 * While the run lives, older frames come from the runtime's log; once its row is final, from the transcript alone. One
 * read of a thread is under way at a time, and one part of a transcript is in memory.
 */
export function createOlderFrames(deps: OlderFramesDeps): OlderFrames {
  let tail: Promise<unknown> = Promise.resolve();
  let kept: UnpackedPart | null = null;
  let forgetting: NodeJS.Timeout | undefined;
  /** The epoch of which the runtime has said that it cannot be had from it. */
  let gone: string | null = null;

  /** Null where the same question may have an answer in a moment. */
  async function askRuntime({ epoch, after, upTo }: Missing): Promise<readonly NumberedFrame[] | null> {
    const { attempt, threadId } = deps.run();
    if (epoch === gone || !epoch.startsWith(`${attempt}.`)) return [];
    const piece = await deps.runtimeLog.read({ threadId, epoch, after, upTo }, PIECE_BYTES);
    if (piece.rest === 'gone') gone = epoch;
    return piece.rest === 'away' ? null : piece.frames;
  }

  async function askTranscript(missing: Missing, late: boolean): Promise<readonly NumberedFrame[] | null> {
    const { epoch, after } = missing;
    if (kept?.epoch !== epoch || !goesOnIn(kept, after) || (kept.frames.at(-1)?.seq ?? 0) <= after) {
      const { proposalId } = deps;
      const { incomplete, frames } = await readTranscriptPart(deps.db, { proposalId, epoch, after });
      if (incomplete && !late && !goesOnIn({ frames }, after)) return null;
      keep({ epoch, frames });
    }
    return pieceOf(kept?.frames ?? [], missing);
  }

  function keep(part: UnpackedPart): void {
    kept = part;
    clearTimeout(forgetting);
    forgetting = setTimeout(() => {
      kept = null;
    }, KEPT_MS).unref();
  }

  async function find(missing: Missing, until: number): Promise<readonly NumberedFrame[]> {
    for (;;) {
      const late = deps.now() >= until || deps.isStopped();
      try {
        const found = await (deps.isFinal() ? askTranscript(missing, late) : askRuntime(missing));
        if (found !== null) return found;
      } catch (error) {
        if (late) deps.log.warn({ err: error }, 'older frames could not be read');
      }
      if (late) return [];
      await deps.sleep(LOOK_AGAIN_MS);
    }
  }

  return {
    read(epoch, after, upTo) {
      const until = deps.now() + WAIT_MS;
      const found = tail.then(() => find({ epoch, after, upTo }, until));
      tail = found;
      return found;
    },
  };
}

/** Whether the frames begin with the next number at the latest. */
function goesOnIn({ frames }: Pick<UnpackedPart, 'frames'>, after: number): boolean {
  return (frames[0]?.seq ?? Number.POSITIVE_INFINITY) <= after + 1;
}

function pieceOf(stored: readonly StoredFrame[], { after, upTo }: Missing): NumberedFrame[] {
  const frames: NumberedFrame[] = [];
  let size = 0;
  for (const { seq, bytes } of stored) {
    if (seq <= after) continue;
    if (seq > upTo || size >= PIECE_BYTES) break;
    frames.push({ number: seq, bytes });
    size += bytes.length;
  }
  return frames;
}
