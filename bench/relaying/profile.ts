import fs from 'node:fs';

/** What is read of a profile of V8; times are microseconds of the monotonic clock. */
interface Profile {
  startTime: number;
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  samples: number[];
  timeDeltas: number[];
}

const SHOWN = 25;

/**
 * The functions with the most self time within the spans, as lines. The sampler takes the time of the wall: what
 * waits for a CPU on a busy machine is counted to the function that waits.
 */
export function topOfProfile(file: string, spans: readonly { from: number; to: number }[]): string {
  const profile = JSON.parse(fs.readFileSync(file, 'utf8')) as Profile;
  const nameOf = new Map(
    profile.nodes.map(({ id, callFrame }) => {
      const place = callFrame.url.split('/').slice(-3).join('/');
      return [id, `${callFrame.functionName || '(anonymous)'} ${place}:${callFrame.lineNumber + 1}`];
    }),
  );
  const selfMicros = new Map<string, number>();
  let total = 0;
  let at = profile.startTime;
  for (const [index, node] of profile.samples.entries()) {
    at += profile.timeDeltas[index] ?? 0;
    const name = nameOf.get(node) ?? '';
    if (name.startsWith('(idle)') || !spans.some(({ from, to }) => at >= from && at <= to)) continue;
    // The time up to the next sample belongs to what this one saw.
    const micros = Math.max(0, profile.timeDeltas[index + 1] ?? 0);
    selfMicros.set(name, (selfMicros.get(name) ?? 0) + micros);
    total += micros;
  }
  return [...selfMicros]
    .sort(([, a], [, b]) => b - a)
    .slice(0, SHOWN)
    .map(
      ([name, micros]) =>
        `${(micros / 1000).toFixed(0).padStart(7)} ms ${((100 * micros) / total).toFixed(1).padStart(5)} %  ${name}`,
    )
    .join('\n');
}
