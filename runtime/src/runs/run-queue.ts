/** A run's place. Each call counts once, however often it is made. */
export interface QueueTicket {
  /** Resolves when the run may start; false where it left before. */
  turn: Promise<boolean>;
  /** The run has said its first word: another may be built. */
  started(): void;
  leave(): void;
}

/** Who may start when. One process's now; the seam for a queue that several share. */
export interface RunQueue {
  /** Whether a run that enters now starts at once. */
  readonly hasRoom: boolean;
  /** Runs that wait. */
  readonly length: number;
  enter(): QueueTicket;
}

/**
 * First come, first served, within two bounds: runs that are live, and among them runs that are still
 * being built (building blocks the loop; fifty at once were measured to hold it for half a second).
 */
export function createRunQueue(bounds: { running: number; starting: number }): RunQueue {
  const waiting = new Set<() => void>();
  let running = 0;
  let starting = 0;

  const hasRoom = (): boolean => running < bounds.running && starting < bounds.starting;
  const admit = (): void => {
    for (const begin of waiting) {
      if (!hasRoom()) return;
      waiting.delete(begin);
      begin();
    }
  };

  return {
    get hasRoom() {
      return waiting.size === 0 && hasRoom();
    },
    get length() {
      return waiting.size;
    },
    enter() {
      let stage: 'waiting' | 'starting' | 'running' | 'left' = 'waiting';
      let tell: (may: boolean) => void = () => {};
      const turn = new Promise<boolean>((resolve) => {
        tell = resolve;
      });
      const begin = (): void => {
        stage = 'starting';
        running++;
        starting++;
        tell(true);
      };
      const started = (): void => {
        if (stage !== 'starting') return;
        stage = 'running';
        starting--;
        admit();
      };
      waiting.add(begin);
      admit();
      return {
        turn,
        started,
        leave() {
          started();
          if (stage === 'waiting') {
            waiting.delete(begin);
            tell(false);
          } else if (stage === 'running') {
            running--;
          }
          stage = 'left';
          admit();
        },
      };
    },
  };
}
