import type { CpuTime } from '../house/cost.js';
import type { ReaderReport } from '../house/messages.js';

/** One round on one relaying process. */
export interface Measurement {
  cpu: CpuTime;
  /** Between the two marks, microseconds of the monotonic clock. */
  measured: { from: number; to: number };
  /** Resident memory that each thread with its viewers added before the first frame, bytes; null where few say nothing. */
  bytesPerThread: number | null;
  report: ReaderReport;
}

/** One regime: the same frames through both, in alternating rounds. */
export interface Comparison {
  name: string;
  orchestrator: Measurement[];
  relay: Measurement[];
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** CPU per delivered frame, microseconds. */
const microsPerFrame = ({ cpu, report }: Measurement): number =>
  ((cpu.user + cpu.system) * 1e6) / report.frames;

/** The rounds' ratios: only what ran side by side on the same machine is compared. */
export const ratiosOf = ({ orchestrator, relay }: Comparison): number[] =>
  orchestrator.map((each, round) => {
    const bare = relay[round];
    return bare === undefined ? Number.NaN : microsPerFrame(each) / microsPerFrame(bare);
  });

/** What is wrong, in sentences; empty where nothing is. */
export function faultsOf(comparison: Comparison, maxRatio: number | null): string[] {
  const faults: string[] = [];
  for (const side of ['orchestrator', 'relay'] as const) {
    for (const [round, { report }] of comparison[side].entries()) {
      if (report.lost > 0)
        faults.push(`${comparison.name}: ${report.lost} frames lost by the ${side} in round ${round + 1}`);
      if (report.cut > 0)
        faults.push(`${comparison.name}: ${report.cut} viewers cut off by the ${side} in round ${round + 1}`);
    }
  }
  const ratio = medianOf(ratiosOf(comparison));
  if (maxRatio !== null && !(ratio <= maxRatio))
    faults.push(`${comparison.name}: ratio ${ratio.toFixed(2)} is over ${maxRatio}`);
  return faults;
}

const head = [
  'regime',
  'process',
  'CPU µs/frame',
  'user',
  'system',
  'frames/s',
  'p50 ms',
  'p99 ms',
  'KiB/thread',
  'ratio',
];

/** A table of medians over the rounds; the ratio's spread in parentheses. */
export function tableOf(comparisons: readonly Comparison[]): string {
  const rows = comparisons.flatMap((comparison) =>
    (['relay', 'orchestrator'] as const).map((side) => {
      const all = comparison[side];
      const median = (value: (each: Measurement) => number) => medianOf(all.map(value));
      const ratios = ratiosOf(comparison);
      const spread = `${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)}`;
      return [
        side === 'relay' ? comparison.name : '',
        side === 'relay' ? 'bare relay' : 'orchestrator',
        median(microsPerFrame).toFixed(2),
        median(({ cpu, report }) => (cpu.user * 1e6) / report.frames).toFixed(2),
        median(({ cpu, report }) => (cpu.system * 1e6) / report.frames).toFixed(2),
        median(({ cpu, report }) => (cpu.helpers * 1e6) / report.frames).toFixed(2),
        Math.round(
          median(({ report, measured }) => (report.frames * 1e6) / (measured.to - measured.from)),
        ).toString(),
        median(({ report }) => report.latency?.p50 ?? Number.NaN).toFixed(1),
        median(({ report }) => report.latency?.p99 ?? Number.NaN).toFixed(1),
        // Later rounds reuse the memory of the first.
        all[0]?.bytesPerThread == null ? '–' : Math.round(all[0].bytesPerThread / 1024).toString(),
        side === 'relay' ? '1.00' : `${medianOf(ratios).toFixed(2)} (${spread})`,
      ];
    }),
  );
  const widths = head.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
