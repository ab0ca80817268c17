import type { NodeRow } from '../db/nodes.js';

export interface ShareFacts {
  node: string;
  /** As they were polled last, this replica among them or not. */
  nodes: readonly Pick<NodeRow, 'id' | 'runtimeReachable'>[];
  dead: ReadonlySet<string>;
  /** Unfinished rows, and those that name this replica. */
  unfinished: { all: number; own: number };
}

/**
 * How many threads this replica takes over at first sight: up to its share of all unfinished ones, which it has with
 * the replicas that live. One that does not reach the runtime has none while another does.
 */
export function roomInShare({ node, nodes, dead, unfinished }: ShareFacts): number {
  const living = nodes.filter(({ id }) => !dead.has(id));
  const self = living.find(({ id }) => id === node) ?? { id: node, runtimeReachable: true };
  const others = living.filter(({ id }) => id !== node);
  const reaching = [self, ...others].filter(({ runtimeReachable }) => runtimeReachable);
  if (reaching.length > 0 && !reaching.includes(self)) return 0;
  const sharers = reaching.length > 0 ? reaching.length : 1 + others.length;
  return Math.max(0, Math.ceil(unfinished.all / sharers) - unfinished.own);
}

/** Longer than two replicas differ in finding the same death. */
const LEFT_MS = 900;

export interface LeftBehind<Row> {
  /**
   * Of rows that could be taken over at `now`, those to be taken: as many as there is room for, and all whose owner's
   * rows have been lying there long enough for every other replica to have taken its share.
   */
  choose(rows: readonly Row[], room: number, now: number): Row[];
}

/** A share is no reason to leave a thread alone: a replica that seems to live may be about to stop, or stuck. */
export function createLeftBehind<Row extends { ownerNode: string | null }>(): LeftBehind<Row> {
  let firstSeen = new Map<string | null, number>();
  return {
    choose(rows, room, now) {
      firstSeen = new Map(rows.map(({ ownerNode }) => [ownerNode, firstSeen.get(ownerNode) ?? now]));
      const left = rows.filter(({ ownerNode }) => now - (firstSeen.get(ownerNode) ?? now) >= LEFT_MS);
      const fresh = rows.filter((row) => !left.includes(row));
      return [...left, ...fresh.slice(0, Math.max(0, room - left.length))];
    },
  };
}
