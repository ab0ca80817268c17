import type { NodeRow } from '../db/nodes.js';

/** A replica whose beat stood still while we could see, with the beat at which it stood. */
interface DeadNode {
  id: string;
  beat: number;
}

export interface DeathWatch {
  /** An answered poll, at `now` (monotonic ms): which replicas are dead by it. */
  seen(nodes: readonly NodeRow[], now: number): DeadNode[];
  /** A poll was not answered: what stood still until then says nothing. */
  failed(): void;
}

/** A beat that has not moved for this long in answered polls is a death. */
const STILL_MS = 3_000;
/** After a gap between polls nothing is known of what happened in it: the watch begins anew. */
const LARGEST_GAP_MS = 1_500;

/**
 * Tells death from a database that was away: only our own monotonic clock counts, and only polls that were
 * answered (`guarantees.md` 12).
 */
export function createDeathWatch(self: string): DeathWatch {
  let lastPoll: number | null = null;
  let watched = new Map<string, { beat: number; since: number }>();
  return {
    failed() {
      lastPoll = null;
    },
    seen(nodes, now) {
      if (lastPoll === null || now - lastPoll > LARGEST_GAP_MS) watched = new Map();
      lastPoll = now;
      const next: typeof watched = new Map();
      const dead: DeadNode[] = [];
      for (const { id, beat } of nodes) {
        if (id === self) continue;
        const before = watched.get(id);
        const since = before !== undefined && before.beat === beat ? before.since : now;
        next.set(id, { beat, since });
        if (now - since >= STILL_MS) dead.push({ id, beat });
      }
      watched = next;
      return dead;
    },
  };
}
