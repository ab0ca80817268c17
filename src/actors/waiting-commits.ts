/** What an ending keeps in memory while its commit waits. */
export interface WaitingEnd {
  /** 0 where it holds nothing worth counting. */
  bytes(): number;
  /** There is no room: forgets what can be read again from the runtime. */
  drop(): void;
  /** There is room: reads it again. Resolves when it is there, or cannot be had, or the actor stops. */
  regain(): Promise<void>;
}

/** The bound on everything that waits for PostgreSQL in this process (`guarantees.md` 17). */
export interface WaitingCommits {
  /** Runs the work that builds and commits an end, once there is room for what it holds. */
  hold<Result>(end: WaitingEnd, work: () => Promise<Result>): Promise<Result>;
  /** Bytes that are held. */
  bytes(): number;
}

/**
 * One budget for all threads. Who finds no room drops what it has and waits for its turn, first come, first served;
 * an end that is larger than all of it goes when nothing else is held. One that holds nothing needs no room, and waits
 * for nobody: those before it may be waiting for a runtime that is away, whose word it does not need.
 */
export function createWaitingCommits(limitBytes: number): WaitingCommits {
  let held = 0;
  const turns: { bytes: number; begin: () => void }[] = [];

  const fits = (bytes: number) => held === 0 || held + bytes <= limitBytes;

  function release(bytes: number): void {
    held -= bytes;
    for (let next = turns[0]; next !== undefined && fits(next.bytes); next = turns[0]) {
      turns.shift();
      held += next.bytes;
      next.begin();
    }
  }

  return {
    bytes: () => held,
    async hold(end, work) {
      const bytes = end.bytes();
      if (bytes === 0) return work();
      if (turns.length === 0 && fits(bytes)) held += bytes;
      else {
        end.drop();
        await new Promise<void>((begin) => turns.push({ bytes, begin }));
      }
      try {
        await end.regain();
        return await work();
      } finally {
        release(bytes);
      }
    },
  };
}
