import { setMaxListeners } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { type Breaches, createBreaches } from './breaches.js';
import { faultsOfAudit } from './check/check-audit.js';
import { faultsOfEnds, faultsOfOutcome, faultsOfRuns, type Reference } from './check/check-outcome.js';
import type { ProposalFacts } from './check/facts.js';
import { faultsOfLogs } from './check/logs.js';
import { type Holding, holdingOf, untilBaseline } from './check/memory.js';
import { type AllFacts, hashesOf, readFacts, unfinished, withDatabase } from './check/read-facts.js';
import { type House, openHouse } from './house/house.js';
import { inflict, type Kill } from './inflict.js';
import { createApi } from './load/api.js';
import { type Counts, createCounts } from './load/counts.js';
import { wishes } from './load/prompts.js';
import { type Refined, refineOnce } from './load/refine-once.js';
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
      if (folder !== null)
        fs.appendFileSync(path.join(folder, 'events.log'), `${new Date().toISOString()} ${part} is ${pid}\n`);
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
  // Everything under way listens.
  setMaxListeners(0, stop, drain.signal);
  const onFault = (what: string) => breaches.add('client', what);
  const onRepeat = () => counts.add('repeated calls');
  const api = createApi({ house, random: random.fork('calls'), onFault, onRepeat });

  const references = await findReferences(api, wishes, signal);
  const baseline = await restedHolding(house);
  // What the databases were made of is on disk before the first kill: that recovery says nothing of ours.
  await withDatabase(house.postgres.url('postgres'), (client) => client.query('CHECKPOINT'));
  say(`${references.length} reference runs are made; ${options.inFlight} refinements under way from now on`);

  const refined: Refined[] = [];
  const began = performance.now();
  const load = Array.from({ length: options.inFlight }, async (_, slot) => {
    const choice = random.fork(`slot ${slot}`);
    // Not all at once.
    await wait(choice.whole(0, 4_000), undefined, { signal: stop });
    for (let turn = 1; !drain.signal.aborted && !stop.aborted; turn++) {
      const name = `${slot + 1}.${turn}`;
      const one = await refineOnce(
        {
          house,
          api,
          random: choice.fork(String(turn)),
          drain: drain.signal,
          stop,
          onFault,
          onFrame: () => counts.add('frames'),
          onResume: (recovery) => counts.add(`resume ${recovery}`),
          onClose: (code) => counts.add(`close ${code}`),
          onViewerFaults(threadId, faults, logs) {
            counts.add('viewers', logs.length);
            for (const fault of faults) breaches.add(threadId, fault);
            if (faults.length > 0) breaches.keep(`viewers-${threadId}`, logs);
          },
        },
        pickWish(choice, references),
        name,
      );
      if (one !== null) refined.push(one);
    }
  });
  const loaded = Promise.allSettled(load);

  const kills: Kill[] = [];
  await inflict({
    house,
    plan: planOf(seed, seconds),
    random: random.fork('victims'),
    counts,
    kills,
    troubles,
    signal,
    note: (fault) =>
      fs.appendFileSync(
        path.join(house.logs, 'events.log'),
        `${new Date().toISOString()} ${JSON.stringify(fault)}\n`,
      ),
  });
  const left = seconds * 1_000 - (performance.now() - began);
  if (left > 0) await wait(left, undefined, { signal }).catch(() => undefined);
  if (signal.aborted) throw stopped(signal);
  say('faults are over; what runs comes to its end');
  drain.abort();
  const deadline = setTimeout(() => over.abort(), drainMs);
  const results = await loaded;
  clearTimeout(deadline);
  if (signal.aborted) throw stopped(signal);
  for (const result of results)
    if (result.status === 'rejected' && !over.signal.aborted) breaches.add('client', String(result.reason));
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
  const holdings: Holding[] = [];
  for (const [name, orchestrator] of house.orchestrators) {
    const { faults, holding } = await untilBaseline(name, orchestrator, baseline, baselineMs);
    if (holding !== null) holdings.push(holding);
    for (const fault of faults) breaches.add('memory', fault);
    if (faults.length > 0) breaches.keep(`memory-${name}`, { baseline, holding });
  }
  const takeOvers = takeOverTimes(facts.proposals, kills, troubles);
  say(summaryOf({ counts, breaches: breaches.count(), takeOvers, baseline, holdings }));
}

function pickWish(random: ReturnType<typeof createRandom>, references: readonly Reference[]): Reference {
  const weighted = references.flatMap((reference, index) =>
    Array<Reference>(wishes[index]?.weight ?? 1).fill(reference),
  );
  return random.pick(weighted);
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

/** Of a start that its client gave up on nobody waits for the end: the database knows of it. */
async function untilNothingMoves(url: string): Promise<void> {
  const deadline = performance.now() + settleMs;
  while ((await unfinished(url)) > 0 && performance.now() < deadline) await wait(500);
}

/** Compares what the databases say with what clients and viewers know. */
function judge(facts: AllFacts, refined: readonly Refined[], breaches: Breaches, counts: Counts): void {
  const { proposals, runs, drafts } = facts;
  const byWorkflow = new Map<string, ProposalFacts[]>();
  for (const one of proposals)
    byWorkflow.set(one.workflowId, [...(byWorkflow.get(one.workflowId) ?? []), one]);
  const known = new Map(refined.map((one) => [one.workflowId, one]));
  const jobs = new Set(proposals.flatMap(({ attempts }) => attempts.map(({ jobId }) => jobId)));
  for (const proposal of proposals) {
    counts.add(`outcome ${proposal.resolution ?? proposal.errorCode ?? proposal.status}`);
    const one = known.get(proposal.workflowId);
    const logs = one?.proposalId === proposal.id ? one.logs : [];
    const faults = [
      ...faultsOfAudit(proposal),
      ...faultsOfRuns(proposal, runs),
      ...faultsOfEnds(proposal, hashesOf(proposal.files ?? {}), logs),
    ];
    for (const fault of faults) breaches.add(proposal.threadId, fault);
    if (faults.length > 0) breaches.keep(`proposal-${proposal.threadId}`, proposal);
  }
  for (const one of refined) {
    const mine = byWorkflow.get(one.workflowId) ?? [];
    const faults = faultsOfOutcome(one, mine, drafts.get(one.workflowId) ?? null);
    const about = one.threadId ?? `workflow ${one.workflowId}`;
    for (const fault of faults) breaches.add(about, fault);
    if (faults.length > 0) breaches.keep(`outcome-${about}`, { one, mine });
  }
  for (const run of runs.values()) {
    const isTombstone = run.startedAt === null && run.status === 'deleted';
    if (!jobs.has(run.jobId) && !isTombstone) breaches.add(run.jobId, 'a run that no attempt names');
  }
  if (facts.outbox > 0) breaches.add('outbox', `${facts.outbox} clean-ups were not delivered`);
}
