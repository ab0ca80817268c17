/** Milliseconds. */
export interface Summary {
  p50: number;
  p99: number;
  max: number;
}

/** Latencies in memory that does not grow: buckets of 1 % width, from 1 microsecond to 1,000 seconds. */
export interface Latencies {
  /** One latency in microseconds; what is below 1 counts as 1. */
  add(micros: number): void;
  /** Milliseconds; null where none was added. */
  summary(): Summary | null;
}

const WIDTH = Math.log(1.01);
const BUCKETS = Math.ceil(Math.log(1e9) / WIDTH) + 1;

export function createLatencies(): Latencies {
  const counts = new Uint32Array(BUCKETS);
  let total = 0;
  let max = 0;
  const quantile = (share: number): number => {
    const rank = Math.ceil(total * share);
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += counts[bucket] as number;
      if (seen >= rank) return Math.min(Math.exp(bucket * WIDTH), max) / 1000;
    }
    return max / 1000;
  };
  return {
    add(micros) {
      const positive = Math.max(1, micros);
      const bucket = Math.min(BUCKETS - 1, Math.round(Math.log(positive) / WIDTH));
      counts[bucket] = (counts[bucket] as number) + 1;
      total++;
      if (positive > max) max = positive;
    },
    summary: () => (total === 0 ? null : { p50: quantile(0.5), p99: quantile(0.99), max: max / 1000 }),
  };
}
