import { setTimeout as wait } from 'node:timers/promises';
import type { Breaches } from '../breaches.js';
import type { Reference } from '../check/check-outcome.js';
import type { Entry } from '../check/viewer-log.js';
import type { Random } from '../random.js';
import type { Counts } from './counts.js';
import { wishes } from './prompts.js';
import { type RefineDeps, type Refined, refineOnce } from './refine-once.js';

/** The first ones do not begin all at once, ms. */
const spreadMs = 4_000;

export interface KeepRefiningDeps extends Pick<RefineDeps, 'house' | 'api' | 'drain' | 'stop' | 'onFault'> {
  random: Random;
  counts: Counts;
  breaches: Breaches;
  references: readonly Reference[];
  /** Under way at any time. */
  inFlight: number;
  onRefined: (one: Refined) => void;
}

/** Begins a refinement wherever one has ended, until it is told to drain. Resolves when all have ended. */
export async function keepRefining(deps: KeepRefiningDeps): Promise<void> {
  const { counts, breaches, drain, stop } = deps;
  const heard: Pick<RefineDeps, 'onEntry' | 'onClose' | 'onViewerFaults'> = {
    onEntry: (entry) => countEntry(counts, entry),
    onClose: (code) => counts.add(`close ${code}`),
    onViewerFaults(threadId, faults, logs) {
      counts.add('viewers', logs.length);
      for (const fault of faults) breaches.add(threadId, fault);
      if (faults.length > 0) breaches.keep(`viewers-${threadId}`, logs);
    },
  };
  const one = async (slot: number): Promise<void> => {
    const random = deps.random.fork(`slot ${slot}`);
    await wait(random.whole(0, spreadMs), undefined, { signal: stop });
    for (let turn = 1; !drain.aborted && !stop.aborted; turn++) {
      const reference = pickReference(random, deps.references);
      const refining = { ...deps, ...heard, random: random.fork(String(turn)) };
      const refined = await refineOnce(refining, reference, `${slot + 1}.${turn}`);
      if (refined !== null) deps.onRefined(refined);
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: deps.inFlight }, (_, slot) => one(slot)));
  for (const end of ended)
    if (end.status === 'rejected' && !stop.aborted) breaches.add('client', String(end.reason));
}

function countEntry(counts: Counts, entry: Entry): void {
  if (entry.kind === 'subscribed' && entry.asked !== null) counts.add(`resume ${entry.recovery}`);
  if (entry.kind === 'skipped') counts.add('skipped ranges');
  if (entry.kind !== 'frame') return;
  counts.add('frames');
  if (entry.first < entry.seq) counts.add('merged frames');
}

function pickReference(random: Random, references: readonly Reference[]): Reference {
  return random.pick(
    references.flatMap((reference, index) => Array<Reference>(wishes[index]?.weight ?? 1).fill(reference)),
  );
}
