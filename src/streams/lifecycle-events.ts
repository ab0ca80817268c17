import type { RuntimeError } from '@ide-orchestrator/protocol';
import { Observable } from 'rxjs';
import { parseFrame } from './decode-frame.js';
import { FrameKind } from './frame-batch.js';
import type { LifecycleFact, RunEnding, StreamSignal } from './stream-signals.js';

/** Sees what matters to the proposal go by, and keeps the runtime's `error` and `end` from the viewers. */
export interface LifecycleEvents {
  /** `(signals$) => facts$`: completes with the fact that ends the run's stream. */
  facts(source: Observable<StreamSignal>): Observable<LifecycleFact>;
  /** The run has told its end, or an error: a lost connection is no reason to open another. */
  ended(): boolean;
}

const UNTOLD: RuntimeError = { code: 'runtime_error', message: 'The run failed without saying why.' };

/** What can be read of an error; a field of the wrong type is as good as none. */
function errorOf(data: unknown): RuntimeError {
  if (typeof data !== 'object' || data === null) return UNTOLD;
  const { code, message, retryable } = data as Record<string, unknown>;
  return {
    code: typeof code === 'string' && code !== '' ? code : UNTOLD.code,
    message: typeof message === 'string' && message !== '' ? message : UNTOLD.message,
    ...(typeof retryable === 'boolean' ? { retryable } : {}),
  };
}

export function createLifecycleEvents(): LifecycleEvents {
  const ending: RunEnding = { errorNumber: 0, errorBytes: null, error: null, endNumber: 0, state: null };
  let told = false;

  function verdict(): LifecycleFact {
    if (ending.error !== null) return { type: 'runtime.failed', ending, error: ending.error };
    const state = ending.state;
    if (state?.status === 'failed') return { type: 'runtime.failed', ending, error: state.error ?? UNTOLD };
    return { type: 'runtime.ended', ending };
  }

  return {
    ended: () => told,
    facts: (source) =>
      new Observable<LifecycleFact>((subscriber) => {
        const finish = (fact: LifecycleFact) => {
          subscriber.next(fact);
          subscriber.complete();
        };
        return source.subscribe({
          next(signal) {
            switch (signal.type) {
              case 'frames': {
                const { batch } = signal;
                for (let index = 0; index < batch.length; index++) {
                  const kind = batch.kinds[index];
                  if (kind !== FrameKind.error && kind !== FrameKind.end) continue;
                  told = true;
                  if (kind === FrameKind.error) {
                    const bytes = Buffer.from(batch.frames[index] as Buffer);
                    ending.error = errorOf(parseFrame(bytes)?.data);
                    ending.errorBytes = bytes;
                    ending.errorNumber = batch.numbers[index] ?? 0;
                  } else {
                    ending.endNumber = batch.numbers[index] ?? 0;
                    return finish(verdict());
                  }
                }
                return;
              }
              case 'epoch':
                if (signal.reset) {
                  told = false;
                  Object.assign(ending, { errorNumber: 0, errorBytes: null, error: null, endNumber: 0 });
                }
                return subscriber.next({
                  type: 'runtime.opened',
                  epoch: signal.epoch,
                  runtimeEpoch: signal.runtimeEpoch,
                });
              case 'lost':
                return subscriber.next({ type: 'runtime.lost' });
              case 'unknown':
                return finish({ type: 'runtime.unknown' });
              case 'oversized':
                return finish({ type: 'runtime.oversized' });
              case 'state':
                ending.state = signal.state;
                return finish(verdict());
              default:
                return;
            }
          },
          error: (error) => subscriber.error(error),
          // The connection went after an `error` without an `end`: the error is the end.
          complete: () => finish(verdict()),
        });
      }),
  };
}
