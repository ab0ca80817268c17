import type { RuntimeError, RuntimeState } from '@ide-orchestrator/protocol';
import type { FrameBatch } from './frame-batch.js';

/** What one connection to the runtime tells: it opens, frames come, it ends in one of four ways. */
export type SocketSignal =
  | { type: 'connected'; send: (message: Buffer | string) => boolean }
  | { type: 'frames'; batch: FrameBatch }
  | { type: 'closed'; code: number }
  /** The upgrade was answered with an HTTP status. */
  | { type: 'refused'; status: number }
  /** A frame over the limit. */
  | { type: 'oversized' };

/** The same with numbers: frames are in order, none twice, and a change of epoch comes before its frames. */
export type NumberedSignal =
  | Exclude<SocketSignal, { type: 'frames' }>
  | { type: 'frames'; batch: FrameBatch }
  /** The epoch is known, or another one begins; `reset` = numbers begin at 1 again. */
  | {
      type: 'epoch';
      epoch: string;
      runtimeEpoch: number | null;
      reset: boolean;
      reason: string;
      lastSeq: number;
    }
  /** Numbers that the runtime will never send. */
  | { type: 'skipped'; first: number; last: number }
  /** A frame was dropped because it cannot be read. */
  | { type: 'unreadable' }
  /** Numbers are missing: the connection is to be opened again at the last position. */
  | { type: 'hole' };

/** What a run's whole stream tells, over all its connections. */
export type StreamSignal =
  | NumberedSignal
  /** The connection was lost, or could not be made; another one follows. */
  | { type: 'lost' }
  /** The runtime does not know the thread. */
  | { type: 'unknown' }
  /** The stream could not tell how the run ended; the runtime's state did. */
  | { type: 'state'; state: RuntimeState };

/** How a run ended, in the runtime's words. */
export interface RunEnding {
  /** Number of the withheld `error`; 0 where there was none, or it had none. */
  errorNumber: number;
  errorBytes: Buffer | null;
  error: RuntimeError | null;
  /** Number of the withheld `end`; 0 where it has none. */
  endNumber: number;
  /** Where the stream ended without telling: what `state` said. */
  state: RuntimeState | null;
}

/** Facts for the proposal's machine: past tense, with their source. */
export type LifecycleFact =
  | { type: 'runtime.opened'; epoch: string; runtimeEpoch: number | null }
  | { type: 'runtime.lost' }
  | { type: 'runtime.ended'; ending: RunEnding }
  | { type: 'runtime.failed'; ending: RunEnding; error: RuntimeError }
  | { type: 'runtime.unknown' }
  | { type: 'runtime.oversized' };
