import { Observable, type Subscription } from 'rxjs';
import type { NumberedSignal, StreamSignal } from './stream-signals.js';

/** What the runtime says of a run when its stream does not tell. */
export type AskedState =
  | { kind: 'state'; state: Extract<StreamSignal, { type: 'state' }>['state'] }
  | { kind: 'not_found' }
  | { kind: 'away' };

export interface ReconnectDeps {
  /** One connection at the last position. */
  connect: () => Observable<NumberedSignal>;
  /** Whether a connection that was lost can go on where it stopped. */
  resumable: () => boolean;
  /** Whether the run has told its end (or an error before a lost connection): nothing more is to come. */
  ended: () => boolean;
  askState: () => Promise<AskedState>;
  /** Milliseconds before the next try, after so many in a row that brought no frame. */
  delayMs: (failures: number) => number;
  sleep: (milliseconds: number) => Promise<void>;
}

/** A connection that brought more reads than this before its hole is no part of a row of holes. */
const LONG_READS = 100;

/**
 * Opens the runtime's socket again until the run has ended: with back-off, at the last position. Where that
 * is not possible, or the connection ended without a word, the runtime's state is asked first.
 */
export function reconnecting(deps: ReconnectDeps): Observable<StreamSignal> {
  return new Observable<StreamSignal>((subscriber) => {
    let connection: Subscription | null = null;
    let failures = 0;
    let holes = 0;
    let reads = 0;
    let opened = false;
    let last: NumberedSignal | null = null;

    /** Milliseconds before the next connection; null = there is none. */
    async function next(): Promise<number | null> {
      if (deps.ended()) return null;
      if (last?.type === 'hole') {
        // One hole is filled at once; a runtime that leaves one after the other does not set our pace.
        if (reads > LONG_READS) holes = 0;
        return holes++ === 0 ? 0 : deps.delayMs(holes - 2);
      }
      holes = 0;
      if (last?.type === 'oversized') return null;
      if (last?.type === 'refused' && last.status === 404) {
        subscriber.next({ type: 'unknown' });
        return null;
      }
      subscriber.next({ type: 'lost' });
      const progress = reads > 0;
      const silent = !progress || (last?.type === 'closed' && last.code === 1000);
      failures = progress ? 0 : failures + 1;
      // A connection that was never made says nothing of the run, and neither would a call.
      if (last?.type !== 'refused' && ((opened && silent) || !deps.resumable())) {
        const asked = await deps.askState();
        if (asked.kind === 'not_found') {
          subscriber.next({ type: 'unknown' });
          return null;
        }
        if (asked.kind === 'state' && asked.state.status !== 'running') {
          subscriber.next({ type: 'state', state: asked.state });
          return null;
        }
      }
      return deps.delayMs(failures);
    }

    async function again(): Promise<void> {
      const delay = await next();
      if (delay === null) return subscriber.complete();
      if (delay > 0) await deps.sleep(delay);
      if (!subscriber.closed) open();
    }

    function open(): void {
      reads = 0;
      opened = false;
      last = null;
      connection = deps.connect().subscribe({
        next(signal) {
          last = signal;
          if (signal.type === 'frames') reads++;
          if (signal.type === 'connected' || signal.type === 'frames') opened = true;
          subscriber.next(signal);
        },
        error: (error) => subscriber.error(error),
        complete: () => void again().catch((error: unknown) => subscriber.error(error)),
      });
    }

    open();
    return () => connection?.unsubscribe();
  });
}
