/** Time that passes when it is told to. */
export interface VirtualClock {
  now(): number;
  sleep(milliseconds: number): Promise<void>;
  /** Lets so much time pass; whoever wakes on the way goes on before the rest of it. */
  pass(milliseconds: number): Promise<void>;
  /** Wakes everybody who waits for something to happen. */
  wake(): void;
  /** Resolves after so long, or when something happens. */
  happens(milliseconds: number): Promise<void>;
}

/** Enough turns for whatever goes on at once. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 12; turn++) await null;
}

export function createVirtualClock(): VirtualClock {
  let now = 0;
  const sleepers = new Set<{ at: number; wake: () => void; early: boolean }>();
  const waitFor = (milliseconds: number, early: boolean) =>
    new Promise<void>((resolve) => {
      const sleeper = {
        at: now + milliseconds,
        early,
        wake() {
          sleepers.delete(sleeper);
          resolve();
        },
      };
      sleepers.add(sleeper);
    });
  return {
    now: () => now,
    sleep: (milliseconds) => waitFor(milliseconds, false),
    happens: (milliseconds) => waitFor(milliseconds, true),
    wake() {
      for (const sleeper of [...sleepers]) if (sleeper.early) sleeper.wake();
    },
    async pass(milliseconds) {
      const until = now + milliseconds;
      for (;;) {
        await settled();
        const due = [...sleepers].filter(({ at }) => at <= until).sort((one, two) => one.at - two.at)[0];
        if (due === undefined) break;
        now = Math.max(now, due.at);
        due.wake();
      }
      now = until;
      await settled();
    },
  };
}
