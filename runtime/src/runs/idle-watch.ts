/** One timer for the idle limits of all runs of the process. */
export interface IdleWatch {
  /** Watches until the returned function is called; `touch` says that something happened. */
  watch(onIdle: () => void): { touch(): void; stop(): void };
  stop(): void;
}

export interface IdleWatchDeps {
  /** Monotonic milliseconds. */
  now: () => number;
}

interface Watched {
  seen: boolean;
  since: number;
  onIdle: () => void;
}

/**
 * Calls `onIdle` once where nothing happened for `idleMs`, at most a quarter of that later.
 *
 * A look that comes more than a second late found the process stopped or blocked: what happened
 * meanwhile waits unread, so every watch begins anew.
 */
export function createIdleWatch({ now }: IdleWatchDeps, idleMs: number): IdleWatch {
  const periodMs = Math.min(1_000, Math.max(5, Math.ceil(idleMs / 4)));
  const watched = new Set<Watched>();
  let lastLook = now();

  const look = (): void => {
    const time = now();
    const late = time - lastLook > periodMs + 1_000;
    lastLook = time;
    for (const entry of watched) {
      if (entry.seen || late) {
        // `touch` is on the way of every event: it sets a flag, the clock is read here.
        entry.seen = false;
        entry.since = time;
      } else if (time - entry.since >= idleMs) {
        watched.delete(entry);
        entry.onIdle();
      }
    }
  };
  const timer = setInterval(look, periodMs);
  timer.unref();

  return {
    watch(onIdle) {
      const entry: Watched = { seen: false, since: now(), onIdle };
      watched.add(entry);
      return {
        touch: () => {
          entry.seen = true;
        },
        stop: () => {
          watched.delete(entry);
        },
      };
    },
    stop: () => clearInterval(timer),
  };
}
