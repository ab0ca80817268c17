import type { ThreadRow } from '../db/row-schemas.js';
import type { Viewer, ViewerPosition } from '../streams/viewer.js';
import type { RunInput } from './run-input.js';

/**
 * How the first invoke of a new run went, within the time that the request waits. `refused`: the row has failed and its
 * key is deleted. `refusing`: a commit of just that may be under way; where it is not made, the run goes on.
 */
export type StartOutcome = 'started' | 'unknown' | 'refused' | 'refusing';

/** A viewer that is being served. */
export interface Attachment {
  /** The socket is gone; nothing is sent to the viewer any more. */
  detach(): void;
  /** The socket's buffer has been written: uWS `drain`. */
  drained(): void;
  /** Hands an object of the viewer to the run as it is; false where no run is open here (`not_streaming`). */
  sendToRun(message: Buffer | string): boolean;
}

/** What `http` knows of the actors: one per live thread on this replica. */
export interface ThreadDirectory {
  /** Null while the runtime may be called; else the seconds to name in Retry-After (the circuit is open). */
  runtimeRetryAfterSeconds(): number | null;
  /** Starts the actor of a proposal that was just written with this input (null: it is read), and waits for its first invoke at most `runs.startWaitMs`. */
  startRun(row: ThreadRow, input: RunInput | null): Promise<StartOutcome>;
  /** Serves a viewer: `on_subscribed`, what it missed, then the run. Rejects with an AppError where the row cannot be read. */
  attach(threadId: string, viewer: Viewer, position: ViewerPosition): Promise<Attachment>;
  /** The row has changed (cancel, decision, access): a hint to look at it. */
  notice(threadId: string): void;
  /** Actors by machine state, for the metrics. */
  counts(): Record<string, number>;
}
