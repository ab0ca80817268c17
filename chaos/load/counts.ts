/** Named counters of a campaign. */
export interface Counts {
  add(name: string, by?: number): void;
  of(name: string): number;
  /** All whose name begins so, without the beginning, most frequent first. */
  under(prefix: string): [string, number][];
}

export function createCounts(): Counts {
  const counts = new Map<string, number>();
  return {
    add: (name, by = 1) => void counts.set(name, (counts.get(name) ?? 0) + by),
    of: (name) => counts.get(name) ?? 0,
    under: (prefix) =>
      [...counts]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, count]): [string, number] => [name.slice(prefix.length), count])
        .sort(([, one], [, other]) => other - one),
  };
}
