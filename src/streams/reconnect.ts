import { defer, EMPTY, finalize, from, merge, type Observable, of, repeat, Subject, tap } from 'rxjs';
import { filter, mergeMap, takeWhile } from 'rxjs/operators';
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
  return defer(() => {
    const told = new Subject<StreamSignal>();
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
        told.next({ type: 'unknown' });
        return null;
      }
      told.next({ type: 'lost' });
      const progress = reads > 0;
      const silent = !progress || (last?.type === 'closed' && last.code === 1000);
      failures = progress ? 0 : failures + 1;
      // A connection that was never made says nothing of the run, and neither would a call.
      if (last?.type !== 'refused' && ((opened && silent) || !deps.resumable())) {
        const asked = await deps.askState();
        if (asked.kind === 'not_found') {
          told.next({ type: 'unknown' });
          return null;
        }
        if (asked.kind === 'state' && asked.state.status !== 'running') {
          told.next({ type: 'state', state: asked.state });
          return null;
        }
      }
      return deps.delayMs(failures);
    }

    const connections$ = defer(() => {
      reads = 0;
      opened = false;
      last = null;
      return deps.connect();
    }).pipe(
      tap((signal) => {
        last = signal;
        if (signal.type === 'connected' || signal.type === 'frames') opened = true;
        if (signal.type === 'frames') reads++;
      }),
      // A hole ends the connection here; the wrapped source is closed by it.
      takeWhile((signal) => signal.type !== 'hole', false),
      repeat({
        delay: () =>
          from(next()).pipe(
            mergeMap((delay) => {
              if (delay === null) return EMPTY;
              return delay === 0 ? of(undefined) : from(deps.sleep(delay));
            }),
          ),
      }),
      finalize(() => told.complete()),
    );
    return merge(
      told,
      connections$.pipe(
        filter(
          (signal): signal is Exclude<NumberedSignal, { type: 'closed' | 'refused' | 'hole' }> =>
            signal.type !== 'closed' && signal.type !== 'refused',
        ),
      ),
    );
  });
}
