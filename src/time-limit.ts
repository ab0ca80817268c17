/** A signal with a time of its own. */
export interface TimeLimit {
  /** Aborts when `outer` does, or when the time is over. */
  readonly signal: AbortSignal;
  /** Nobody waits for it any more. */
  end(): void;
}

/**
 * Instead of `AbortSignal.any([outer, AbortSignal.timeout(…)])`, which on Node 20 holds neither: once the timeout is
 * collected it never fires, and who waited for it waits for ever. The timer does not keep the process.
 *
 * @param milliseconds from now
 */
export function limitTime(outer: AbortSignal, milliseconds: number): TimeLimit {
  const own = new AbortController();
  const over = () => own.abort(outer.aborted ? outer.reason : new Error(`over after ${milliseconds} ms`));
  const timer = setTimeout(over, milliseconds);
  timer.unref();
  outer.addEventListener('abort', over, { once: true });
  if (outer.aborted) over();
  return {
    signal: own.signal,
    end() {
      clearTimeout(timer);
      outer.removeEventListener('abort', over);
    },
  };
}
