import type { ProposalFacts } from './check/facts.js';
import type { Outage } from './house/postgres.js';
import type { Kill } from './inflict.js';

/** Of a sorted list; null of an empty one. */
export function quantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}

/** A node's id is host, pid and a random part, joined by dashes. */
const pidOf = (node: string): number => Number(node.split('-').at(-2));

export interface TakeOverTimes {
  /** Milliseconds, sorted, whatever else was broken meanwhile. */
  all: number[];
  /** Of those during which PostgreSQL was there all the time. */
  undisturbed: number[];
}

/** From the kill of an owner to the commit that gave its thread a new one. */
export function takeOverTimes(
  proposals: readonly ProposalFacts[],
  kills: readonly Kill[],
  outages: readonly Outage[],
): TakeOverTimes {
  const killedAt = new Map(kills.map(({ pid, at }) => [pid, at]));
  const spans = proposals
    .flatMap(({ transitions }) => transitions)
    .flatMap(({ event, fromNode, at }) => {
      if (event !== 'taken_over' || fromNode === null) return [];
      const killed = killedAt.get(pidOf(fromNode));
      return killed === undefined || at < killed ? [] : [{ from: killed, to: at }];
    });
  const undisturbed = spans.filter(
    (span) => !outages.some((outage) => outage.from < span.to && (outage.to ?? span.to) > span.from),
  );
  const sorted = (list: typeof spans) =>
    list.map(({ from, to }) => to - from).sort((one, other) => one - other);
  return { all: sorted(spans), undisturbed: sorted(undisturbed) };
}
