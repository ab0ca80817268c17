import { runtimeOpening } from '@ide-orchestrator/protocol';
import { Subject, takeUntil } from 'rxjs';
import { createFrameDecoder } from './decode-frame.js';
import { type FrameBatch, FrameKind } from './frame-batch.js';
import type { NumberedFrame } from './replay-window.js';
import type { RuntimeFrames } from './runtime-socket.js';
import type { SocketSignal } from './stream-signals.js';

interface LogRange {
  /** The run, as the runtime names it. */
  threadId: string;
  /** `<attempt>.<runtime epoch>`. */
  epoch: string;
  after: number;
  upTo: number;
}

interface LogPiece {
  frames: readonly NumberedFrame[];
  /**
   * What is to be said of the range behind the last frame: `more` = ask again there; `whole` = it holds no other;
   * `away` = the runtime did not answer; `gone` = this log cannot be had any more, or never could.
   */
  rest: 'more' | 'whole' | 'away' | 'gone';
}

/** The runtime's own log of a run, read again in pieces, each over a short connection. */
export interface RuntimeLog {
  /** At least one frame, and no more once there are `bytes` of them. Never rejects. */
  read(range: LogRange, bytes?: number): Promise<LogPiece>;
}

export interface RuntimeLogDeps {
  runtimeFrames: RuntimeFrames;
  /** Milliseconds for one piece; what has come by then is the piece. */
  timeoutMs: number;
}

const PIECE_BYTES = 256 * 1024;

/** The runtime's own epoch; null where ours was made up for a connection. */
function runtimeEpochOf(epoch: string): number | null {
  const told = /^\d+\.(\d+)$/.exec(epoch)?.[1];
  return told === undefined ? null : Number(told);
}

export function createRuntimeLog(deps: RuntimeLogDeps): RuntimeLog {
  return {
    read: (range, bytes = PIECE_BYTES) =>
      new Promise((resolve) => {
        const epoch = runtimeEpochOf(range.epoch);
        if (epoch === null) return resolve({ frames: [], rest: 'gone' });
        const enough = new Subject<void>();
        const finish = (piece: LogPiece) => {
          clearTimeout(late);
          resolve(piece);
          enough.next();
        };
        const reader = createPieceReader({ ...range, epoch, bytes }, finish);
        const late = setTimeout(reader.interrupted, deps.timeoutMs);
        deps.runtimeFrames
          .frames(range.threadId, { after: range.after, epoch })
          .pipe(takeUntil(enough))
          .subscribe({ next: reader.take, error: reader.interrupted });
      }),
  };
}

/** Reads one connection; `finish` is called once. */
function createPieceReader(
  range: { epoch: number; after: number; upTo: number; bytes: number },
  finish: (piece: LogPiece) => void,
) {
  const decoder = createFrameDecoder();
  const frames: NumberedFrame[] = [];
  let size = 0;
  let last = range.after;
  /** Nothing above this number is to come now. */
  let upTo = range.upTo;
  let opened = false;
  let done = false;

  function end(rest: LogPiece['rest']): void {
    if (done) return;
    done = true;
    finish({ frames, rest });
  }

  const interrupted = () => end(frames.length > 0 ? 'more' : 'away');

  /** Without the runtime's word the same numbers may be those of another log. */
  function open(): void {
    if (opened) return;
    const opening = runtimeOpening.safeParse(decoder.value?.data);
    if (!opening.success || opening.data.epoch !== range.epoch) return end('gone');
    opened = true;
    upTo = Math.min(upTo, opening.data.last_seq);
    if (last >= upTo) end('whole');
  }

  function takeFrame(bytes: Buffer): void {
    const kind = decoder.decode(bytes);
    const { number } = decoder;
    if (kind === FrameKind.opening) return open();
    if (kind === FrameKind.rejected || kind === FrameKind.unreadable) return;
    if (!opened) return end('gone');
    // The run's own error and end are withheld from viewers, and so is whatever comes after them.
    if (kind === FrameKind.error || kind === FrameKind.end) return end('whole');
    if (number === 0) return frames.length === 0 ? end('gone') : undefined;
    if (number <= last) return;
    if (number > upTo) return end('whole');
    // Another connection may bring what this one left out; where it begins with the same hole there is no more.
    if (number > last + 1 && frames.length > 0) return end('more');
    frames.push({ number, bytes: Buffer.from(bytes) });
    last = number;
    size += bytes.length;
    if (last === upTo) end('whole');
    else if (size >= range.bytes) end('more');
  }

  function takeBatch({ frames: came, kinds, length }: FrameBatch): void {
    for (let index = 0; index < length && !done; index++) {
      if (kinds[index] !== FrameKind.unreadable) takeFrame(came[index] as Buffer);
    }
  }

  function take(signal: SocketSignal): void {
    switch (signal.type) {
      case 'frames':
        return takeBatch(signal.batch);
      case 'closed':
        return interrupted();
      case 'refused':
        return end(signal.status === 404 ? 'gone' : 'away');
      case 'oversized':
        return end(frames.length > 0 ? 'more' : 'gone');
      default:
        return;
    }
  }

  return { take, interrupted };
}
