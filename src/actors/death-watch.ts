import type { NodeRow } from '../db/nodes.js';

/** A replica whose beat stood still while we could see. */
export interface DeadNode {
  id: string;
  /** The beat at which it stood. */
  beat: number;
  /** When that beat was first seen, monotonic ms. */
  since: number;
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
export const LARGEST_GAP_MS = 1_500;

/**
 * Tells death from a database that was away: only our own monotonic clock counts, and only polls that were
 * answered (`guarantees.md` 12).
 */
export function createDeathWatch(self: string): DeathWatch {
  let lastPoll: number | null = null;
  let watched = new Map<string, DeadNode>();
  return {
    failed() {
      lastPoll = null;
    },
    seen(nodes, now) {
      if (lastPoll === null || now - lastPoll > LARGEST_GAP_MS) watched = new Map();
      lastPoll = now;
      const next: typeof watched = new Map();
      for (const { id, beat } of nodes) {
        if (id === self) continue;
        const before = watched.get(id);
        next.set(id, before !== undefined && before.beat === beat ? before : { id, beat, since: now });
      }
      watched = next;
      return [...watched.values()].filter(({ since }) => now - since >= STILL_MS);
    },
  };
}
