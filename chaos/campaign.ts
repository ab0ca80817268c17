import { setMaxListeners } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { type Breaches, createBreaches } from './breaches.js';
import { judge } from './check/judge.js';
import { faultsOfLogs } from './check/logs.js';
import { type Holding, holdingOf, untilBaseline } from './check/memory.js';
import { readFacts, unfinished, withDatabase } from './check/read-facts.js';
import { type House, openHouse } from './house/house.js';
import { inflict, type Kill } from './inflict.js';
import { createApi } from './load/api.js';
import { type Counts, createCounts } from './load/counts.js';
import { keepRefining } from './load/keep-refining.js';
import { wishes } from './load/prompts.js';
import type { Refined } from './load/refine-once.js';
import { planOf } from './plan.js';
import { createRandom } from './random.js';
import { findReferences } from './references.js';
import { summaryOf } from './summary.js';
import { takeOverTimes } from './take-over-times.js';
import { createTroubles, type Troubles } from './troubles.js';

export interface CampaignOptions {
  seed: string;
  seconds: number;
  /** Refinements under way at any time. */
  inFlight: number;
  say: (line: string) => void;
  /** Ctrl-C. */
  signal: AbortSignal;
}

/** From the last fault to the end of everything that runs. */
const drainMs = 90_000;
/** A clean-up waits up to a minute for the transcript of its run. */
const settleMs = 100_000;
const baselineMs = 45_000;
const stopped = (signal: AbortSignal) => new Error('The campaign was stopped.', { cause: signal.reason });

/** Runs a campaign; resolves with true where nothing was breached. */
export async function runCampaign(options: CampaignOptions): Promise<boolean> {
  const { seed, seconds, say } = options;
  // Everything under way listens to the same few signals.
  setMaxListeners(0);
  setMaxListeners(0, options.signal);
  const counts = createCounts();
  const troubles = createTroubles();
  let folder: string | null = null;
  const breaches = createBreaches({ folder: () => folder, say });
  say(`seed ${seed}, ${seconds} s`);
  const house = await openHouse({
    signal: options.signal,
    troubles,
    name: `seed-${seed.replaceAll(/[^\w.-]/g, '_')}`,
    onSurprise: (what) => breaches.add('process', what),
    onSpawn: (part, pid) => {
      if (folder !== null) noteEvent(folder, `${part} is ${pid}`);
    },
  });
  folder = house.logs;
  say(`logs ${folder}`);
  let passed = false;
  try {
    await play(options, house, counts, breaches, troubles);
    passed = breaches.count() === 0;
  } finally {
    await house.stop();
    folder = null;
    if (passed) fs.rmSync(house.logs, { recursive: true, force: true });
  }
  return passed;
}

function noteEvent(folder: string, what: string): void {
  fs.appendFileSync(path.join(folder, 'events.log'), `${new Date().toISOString()} ${what}\n`);
}

async function play(
  options: CampaignOptions,
  house: House,
  counts: Counts,
  breaches: Breaches,
  troubles: Troubles,
): Promise<void> {
  const { seed, seconds, signal, say } = options;
  const random = createRandom(seed);
  const over = new AbortController();
  const drain = new AbortController();
  const stop = AbortSignal.any([signal, over.signal]);
  const onFault = (what: string) => breaches.add('client', what);
  const onRepeat = () => counts.add('repeated calls');
  const api = createApi({ house, random: random.fork('calls'), onFault, onRepeat });

  const references = await findReferences(api, wishes, signal);
  const baseline = await restedHolding(house);
  // What the databases were made of is on disk before the first kill: that recovery says nothing of ours.
  await withDatabase(house.postgres.url('postgres'), (client) => client.query('CHECKPOINT'));
  say(`${references.length} reference runs are made; ${options.inFlight} refinements under way from now on`);

  const began = performance.now();
  const refined: Refined[] = [];
  const loaded = keepRefining({
    house,
    api,
    random,
    drain: drain.signal,
    stop,
    onFault,
    counts,
    breaches,
    references,
    inFlight: options.inFlight,
    onRefined: (one) => refined.push(one),
  });

  const kills: Kill[] = [];
  await inflict({
    house,
    plan: planOf(seed, seconds),
    random: random.fork('victims'),
    counts,
    kills,
    troubles,
    signal,
    note: (fault) => noteEvent(house.logs, JSON.stringify(fault)),
  });
  const left = seconds * 1_000 - (performance.now() - began);
  if (left > 0) await wait(left, undefined, { signal }).catch(() => undefined);
  if (signal.aborted) throw stopped(signal);
  say('faults are over; what runs comes to its end');
  drain.abort();
  const deadline = setTimeout(() => over.abort(), drainMs);
  await loaded;
  clearTimeout(deadline);
  if (signal.aborted) throw stopped(signal);
  if (over.signal.aborted)
    breaches.add('drain', `not everything ended within ${drainMs / 1_000} s after the last fault`);

  const database = house.postgres.url('ide_orchestrator');
  await untilNothingMoves(database);
  const facts = await readFacts({
    orchestrator: database,
    runtime: house.postgres.url('deepagents_runtime'),
  });
  judge(facts, refined, breaches, counts);
  for (const fault of faultsOfLogs(house.logs)) breaches.add('log', fault);
  const holdings = await untilRested(house, baseline, breaches);
  const takeOvers = takeOverTimes(facts.proposals, kills, troubles);
  say(summaryOf({ counts, breaches: breaches.count(), takeOvers, baseline, holdings }));
}

/** A replica that has run something and has nothing left of it. */
async function restedHolding(house: House) {
  const [orchestrator] = house.orchestrators.values();
  if (orchestrator === undefined) throw new Error('there is no replica');
  for (let tries = 0; tries < 40; tries++) {
    const holding = await holdingOf(orchestrator);
    if (holding.actors === 0) return holding;
    await wait(500);
  }
  throw new Error('The replica does not come to rest before the campaign.');
}

/** What each replica holds when it has had time to let go. */
async function untilRested(house: House, baseline: Holding, breaches: Breaches): Promise<Holding[]> {
  const holdings: Holding[] = [];
  for (const [name, orchestrator] of house.orchestrators) {
    const { faults, holding } = await untilBaseline(name, orchestrator, baseline, baselineMs);
    if (holding !== null) holdings.push(holding);
    for (const fault of faults) breaches.add('memory', fault);
    if (faults.length > 0) breaches.keep(`memory-${name}`, { baseline, holding });
  }
  return holdings;
}

/** Of a start that its client gave up on nobody waits for the end: the database knows of it. */
async function untilNothingMoves(url: string): Promise<void> {
  const deadline = performance.now() + settleMs;
  while ((await unfinished(url)) > 0 && performance.now() < deadline) await wait(500);
}
