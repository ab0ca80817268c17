import type { ProposalFacts } from './check/facts.js';
import type { Kill } from './inflict.js';
import { replicas } from './plan.js';
import type { Troubles } from './troubles.js';

/** Of a sorted list; null of an empty one. */
export function quantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}

/** A node's id is host, pid and a random part, joined by dashes. */
const pidOf = (node: string): number => Number(node.split('-').at(-2));

export interface TakeOverTimes {
  /** Milliseconds, sorted, whatever else was broken meanwhile. */
  all: number[];
  /** Of those during which PostgreSQL and another replica were there, and together, all the time. */
  undisturbed: number[];
}

/** From the kill of an owner to the commit that gave its thread a new one. */
export function takeOverTimes(
  proposals: readonly ProposalFacts[],
  kills: readonly Kill[],
  troubles: Troubles,
): TakeOverTimes {
  const killed = new Map(kills.map((kill) => [kill.pid, kill]));
  const spans = proposals
    .flatMap(({ transitions }) => transitions)
    .flatMap(({ event, fromNode, at }) => {
      if (event !== 'taken_over' || fromNode === null) return [];
      const kill = killed.get(pidOf(fromNode));
      return kill === undefined || at < kill.at ? [] : [{ part: kill.part, from: kill.at, to: at }];
    });
  const undisturbed = spans.filter(({ part, from, to }) => {
    const wasThere = (name: string) => !troubles.between(name, from, to);
    return wasThere('postgres') && replicas.some((name) => name !== part && wasThere(name));
  });
  const sorted = (list: typeof spans) =>
    list.map(({ from, to }) => to - from).sort((one, other) => one - other);
  return { all: sorted(spans), undisturbed: sorted(undisturbed) };
}
