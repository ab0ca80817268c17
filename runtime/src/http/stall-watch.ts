/** A socket's traffic, as far as its own process knows. */
interface Watched {
  /** Bytes handed to the socket so far. */
  sent(): number;
  /** Bytes of them that still wait in it. */
  waiting(): number;
  /** Called once. */
  onStall(): void;
}

/** Finds sockets whose readers take nothing. */
export interface StallWatch {
  /** Watches a socket until the returned function is called. */
  watch(socket: Watched): () => void;
  stop(): void;
}

/**
 * Calls `onStall` where bytes waited for `stallMs` (and up to a quarter more) and none of them was
 * taken. Looked at from a timer, so that a frame costs nothing more.
 */
export function createStallWatch({ now }: { now: () => number }, stallMs: number): StallWatch {
  const periodMs = Math.max(10, Math.ceil(stallMs / 4));
  const watched = new Map<Watched, { taken: number; since: number }>();
  let lastLook = now();
  const look = (): void => {
    const time = now();
    // The process itself stood still: that nothing was taken meanwhile is not the readers' fault.
    const late = time - lastLook > periodMs + 1_000;
    lastLook = time;
    for (const [socket, seen] of watched) {
      const waiting = socket.waiting();
      const taken = socket.sent() - waiting;
      if (waiting === 0 || late || taken !== seen.taken) {
        seen.taken = taken;
        seen.since = time;
      } else if (time - seen.since >= stallMs) {
        watched.delete(socket);
        socket.onStall();
      }
    }
  };
  const timer = setInterval(look, periodMs);
  timer.unref();
  return {
    watch(socket) {
      watched.set(socket, { taken: 0, since: now() });
      return () => {
        watched.delete(socket);
      };
    },
    stop: () => clearInterval(timer),
  };
}
