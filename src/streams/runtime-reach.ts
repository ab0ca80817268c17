/** Whether this replica reaches the runtime, by its last try. */
export interface RuntimeReach {
  /** The runtime answered. */
  heard(): void;
  /** It did not. */
  missed(): void;
  /** For how long (ms) it has not been reached; 0 while the last try did, or nothing was tried. */
  silentMs(): number;
}

/** `now`: monotonic milliseconds. */
export function createRuntimeReach(now: () => number): RuntimeReach {
  let heardAt = now();
  let silent = false;
  return {
    heard() {
      heardAt = now();
      silent = false;
    },
    missed() {
      silent = true;
    },
    silentMs: () => (silent ? Math.max(1, now() - heardAt) : 0),
  };
}
