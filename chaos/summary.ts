import type { Holding } from './check/memory.js';
import type { Counts } from './load/counts.js';
import { quantile, type TakeOverTimes } from './take-over-times.js';

const listOf = (counts: Counts, prefix: string): string =>
  counts
    .under(prefix)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ') || 'none';

/** What the replicas hold at the end, the most of any, beside what a rested one held before. */
function heldBy(baseline: Holding, holdings: readonly Holding[]): string {
  const names = ['actors', 'viewers', 'database', 'runtime', 'descriptors', 'timers', 'heapMiB'] as const;
  const most = (name: (typeof names)[number]) => Math.max(...holdings.map((holding) => holding[name] ?? 0));
  return names.map((name) => `${name} ${baseline[name] ?? 0} to ${most(name)}`).join(', ');
}

/** The one line that a campaign ends with. */
export function summaryOf(of: {
  counts: Counts;
  breaches: number;
  takeOvers: TakeOverTimes;
  baseline: Holding;
  holdings: readonly Holding[];
}): string {
  const { counts, takeOvers } = of;
  const times = (list: readonly number[]) => {
    const [p50, p99] = [0.5, 0.99].map((share) => ((quantile(list, share) ?? 0) / 1_000).toFixed(2));
    return `${list.length} (p50 ${p50} s, p99 ${p99} s)`;
  };
  return [
    `kills: ${listOf(counts, 'kill ')}`,
    `stops in order: ${listOf(counts, 'terminate ')}`,
    `freezes: ${listOf(counts, 'freeze ')}`,
    `connections: ${['cut', 'hold', 'delay', 'slice'].map((kind) => `${kind} ${counts.of(`${kind} connections`)}`).join(', ')}`,
    `proposals: ${listOf(counts, 'outcome ')}`,
    `viewers: ${counts.of('viewers')}`,
    `resumes: ${listOf(counts, 'resume ')}`,
    `closes: ${listOf(counts, 'close ')}`,
    `frames: ${counts.of('frames')}, merged ones ${counts.of('merged frames')}, skipped ranges ${counts.of('skipped ranges')}`,
    `repeated calls: ${counts.of('repeated calls')}`,
    `take-overs after a kill: ${times(takeOvers.all)}, with PostgreSQL and another replica there all the time ${times(takeOvers.undisturbed)}`,
    `held: ${heldBy(of.baseline, of.holdings)}`,
    `breaches: ${of.breaches}`,
  ].join(' · ');
}
