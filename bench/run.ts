/**
 * `npm run bench`: what a relayed frame costs the orchestrator, as a multiple of what it costs a bare relay.
 * Both get the same frames in alternating rounds, flooded and at the pace of real tokens. Exit code 1 where a frame
 * was lost, or a ratio is over --max-ratio.
 */
import process from 'node:process';
import { Command, InvalidArgumentError } from 'commander';
import { type House, openHouse, profileFile, profileFlags, startOrchestrator } from './house/house.js';
import type { LoadOrder, ReaderOrder, RelayOrder } from './house/messages.js';
import { startPart } from './house/part.js';
import { topOfProfile } from './relaying/profile.js';
import { type Regime, type RoundDeps, runRound } from './relaying/round.js';
import { orchestratorTarget, relayTarget, type Target } from './relaying/targets.js';
import { type Comparison, faultsOf, ratiosOf, tableOf } from './relaying/verdict.js';

interface Flags {
  regime: 'all' | 'flooded' | 'paced';
  rounds: number;
  frames: number;
  viewers: number[];
  threads: number;
  rate: number;
  seconds: number;
  pacedViewers: number[];
  maxRatio?: number;
  quick?: true;
  profile?: true;
  nodeFlags: string[];
}

const FLOODED_THREADS = 10;
const LONGEST_MS = 15 * 60_000;

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('A number above 0 is needed.');
  return value;
}
const list = (text: string): number[] => text.split(',').map(positive);

function flagsOf(argv: readonly string[]): Flags {
  const flags = new Command('npm run bench --')
    .option('--regime <name>', 'flooded, paced or all', 'all')
    .option('--rounds <n>', 'alternating rounds of each regime', positive, 3)
    .option('--frames <n>', `flooded: frames of each of ${FLOODED_THREADS} threads`, positive, 40_000)
    .option('--viewers <list>', 'flooded: viewers of each thread', list, [1, 5])
    .option('--threads <n>', 'paced: threads', positive, 1000)
    .option('--rate <n>', 'paced: frames a second and thread', positive, 20)
    .option('--seconds <n>', 'paced: seconds of each round', positive, 5)
    .option('--paced-viewers <list>', 'paced: viewers of each thread', list, [1])
    .option('--max-ratio <n>', 'fail where the median ratio of a regime is higher', positive)
    .option('--quick', 'one short round of each, to see that it works')
    .option('--profile', 'write CPU profiles of both below .bench/profiles')
    .option(
      '--node-flags <flags>',
      'flags of Node for both, separated by spaces',
      (text) => text.split(' '),
      [],
    )
    .parse(argv)
    .opts<Flags>();
  if (!flags.quick) return flags;
  return { ...flags, rounds: 1, frames: 10_000, viewers: [1], threads: 300, seconds: 3 };
}

function regimesOf(flags: Flags): Regime[] {
  const flooded = flags.viewers.map((viewers) => ({
    name: `flooded, ${FLOODED_THREADS} threads, ${viewers} viewer${viewers === 1 ? '' : 's'}`,
    threads: FLOODED_THREADS,
    viewers,
    // The deliveries of a round stay the same.
    frames: Math.max(1000, Math.round(flags.frames / Math.sqrt(viewers))),
    perSecond: null,
  }));
  const paced = flags.pacedViewers.map((viewers) => ({
    name: `paced, ${flags.threads} × ${flags.rate}/s, ${viewers} viewer${viewers === 1 ? '' : 's'}`,
    threads: flags.threads,
    viewers,
    frames: Math.round(flags.rate * flags.seconds),
    perSecond: flags.rate,
  }));
  if (flags.regime === 'flooded') return flooded;
  return flags.regime === 'paced' ? paced : [...flooded, ...paced];
}

/** Starts everything that a round needs. */
async function begin(
  house: House,
  flags: Flags,
): Promise<{ deps: RoundDeps; targets: Record<Target['name'], Target> }> {
  const load = startPart<LoadOrder>('load-runtime');
  house.add(load.stop);
  const { port: runtimePort } = await load.next('listening');
  const nodeFlags = (name: string): string[] => [
    ...flags.nodeFlags,
    ...(flags.profile ? profileFlags(name) : []),
  ];
  const relay = startPart<RelayOrder>('bare-relay', { nodeFlags: nodeFlags('relay') });
  house.add(relay.stop);
  const { port: relayPort } = await relay.next('listening');
  const reader = startPart<ReaderOrder>('reader');
  house.add(reader.stop);
  await reader.next('opened');
  const runtimeUrl = `http://127.0.0.1:${runtimePort}`;
  const orchestrator = await startOrchestrator(house, {
    runtimeUrl,
    nodeFlags: nodeFlags('orchestrator'),
  });
  const targets = {
    orchestrator: await orchestratorTarget(house, orchestrator),
    relay: relayTarget(relay, relayPort, runtimePort),
  };
  return { deps: { load, reader }, targets };
}

async function compare(
  deps: RoundDeps,
  targets: Record<Target['name'], Target>,
  regime: Regime,
  rounds: number,
): Promise<Comparison> {
  const comparison: Comparison = { name: regime.name, orchestrator: [], relay: [] };
  for (let round = 0; round < rounds; round++) {
    // Whoever comes second finds warmer caches: they take turns in that too.
    const order =
      round % 2 === 0 ? (['relay', 'orchestrator'] as const) : (['orchestrator', 'relay'] as const);
    for (const side of order) comparison[side].push(await runRound(deps, targets[side], regime));
    const ratio = ratiosOf(comparison)[round]?.toFixed(2);
    process.stderr.write(`${regime.name}: round ${round + 1} of ${rounds}, ratio ${ratio}\n`);
  }
  return comparison;
}

/** Where the time went between the marks, of all regimes together: profile one regime at a time. */
function profilesOf(comparisons: readonly Comparison[]): string {
  const sides = (['relay', 'orchestrator'] as const).map((side) => {
    const spans = comparisons.flatMap((each) => each[side].map(({ measured }) => measured));
    return `\n${side}, self time between the marks\n${topOfProfile(profileFile(side), spans)}\n`;
  });
  return sides.join('');
}

async function main(): Promise<number> {
  const flags = flagsOf(process.argv);
  const house = await openHouse();
  const tooLong = setTimeout(() => {
    process.stderr.write('The bench took too long.\n');
    void house.stop().then(() => process.exit(1));
  }, LONGEST_MS);
  try {
    const { deps, targets } = await begin(house, flags);
    const warmUp = { name: 'warm-up', threads: FLOODED_THREADS, viewers: 1, frames: 10_000, perSecond: null };
    await compare(deps, targets, warmUp, 1);
    const comparisons: Comparison[] = [];
    for (const regime of regimesOf(flags)) {
      comparisons.push(await compare(deps, targets, regime, flags.rounds));
    }
    process.stdout.write(`${tableOf(comparisons)}\n`);
    const faults = comparisons.flatMap((each) => faultsOf(each, flags.maxRatio ?? null));
    for (const fault of faults) process.stdout.write(`FAILED ${fault}\n`);
    await house.stop();
    if (flags.profile) process.stdout.write(profilesOf(comparisons));
    return faults.length === 0 ? 0 : 1;
  } finally {
    clearTimeout(tooLong);
    await house.stop();
  }
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  },
);
