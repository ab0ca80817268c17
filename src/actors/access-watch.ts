export interface AccessWatch {
  /** All threads were read again: who may look is known up to now. */
  read(): void;
  /** Asked at least once a second: nothing was read for so long that nobody knows who may look (`guarantees.md` 17). */
  isUnknown(): boolean;
}

/** Asked later than this after the last time, the process stood still: a reading gets its chance first. */
const STOOD_STILL_MS = 2_000;
const SECOND_CHANCE_MS = 3_000;

export function createAccessWatch(deps: {
  unknownMs: number;
  /** Monotonic milliseconds. */
  now: () => number;
}): AccessWatch {
  let readAt = deps.now();
  let askedAt = readAt;
  let notBefore = 0;
  return {
    read() {
      readAt = deps.now();
    },
    isUnknown() {
      const now = deps.now();
      if (now - askedAt > STOOD_STILL_MS) notBefore = now + SECOND_CHANCE_MS;
      askedAt = now;
      return now - readAt > deps.unknownMs && now >= notBefore;
    },
  };
}
