export interface IdleTimeDeps {
  /** Nothing goes on in the thread that this replica is needed for. */
  isAtRest: () => boolean;
  viewers: () => number;
  /** Monotonic milliseconds. */
  now: () => number;
}

/** Since when a thread has had nothing to do, and nobody to serve. */
export interface IdleTime {
  /** Monotonic milliseconds; null while there is something. It counts from the first time that it is asked. */
  since(): number | null;
  /** The thread has gone on: what it was idle for until now does not count. */
  beginAnew(): void;
  /** A viewer is being let in, which may take seconds: until then it counts as one that is served. */
  serving<Result>(entering: Promise<Result>): Promise<Result>;
}

export function createIdleTime({ isAtRest, viewers, now }: IdleTimeDeps): IdleTime {
  let from: number | null = null;
  let beingLetIn = 0;
  return {
    since() {
      const idle = isAtRest() && beingLetIn === 0 && viewers() === 0;
      from = idle ? (from ?? now()) : null;
      return from;
    },
    beginAnew() {
      from = null;
    },
    serving(entering) {
      beingLetIn++;
      return entering.finally(() => {
        beingLetIn--;
      });
    },
  };
}
