import { setTimeout as wait } from 'node:timers/promises';
import { cpuTimeOf, residentBytesOf } from '../house/cost.js';
import type { LoadOrder, ReaderOrder } from '../house/messages.js';
import type { Part } from '../house/part.js';
import type { Target } from './targets.js';
import type { Measurement } from './verdict.js';

/** What is sent: as fast as it is taken, or at the pace of real tokens. */
export interface Regime {
  name: string;
  threads: number;
  viewers: number;
  /** Frames of each thread. */
  frames: number;
  /** Frames a second on each thread; null = as fast as they are taken. */
  perSecond: number | null;
}

export interface RoundDeps {
  load: Part<LoadOrder>;
  reader: Part<ReaderOrder>;
}

/** Frames of one thread that may be under way in a flood: below what may wait for a viewer, so that only a fault loses one. */
const CREDIT = 1000;
/** Memory is told for so many threads: below, that of the runtime underneath moves more. */
const MANY_THREADS = 100;
const QUIET_LOOK_MS = 250;
/** CPU that a process at rest may use in one look: its timers, and one step of the clock. */
const QUIET_SECONDS = 0.02;
const QUIET_WITHIN_MS = 6_000;

/** One round: all viewers are there before the first frame, and the last state and `end` come after the second mark. */
export async function runRound(deps: RoundDeps, target: Target, regime: Regime): Promise<Measurement> {
  const { load, reader } = deps;
  // What an ended run still costs, its transcript for one, is not what a frame of the next costs.
  await untilQuiet(target.pid);
  const residentBefore = residentBytesOf(target.pid);
  const { threads, paths } = await target.begin(regime.threads);
  await untilStreams(load, threads.length);
  const viewers = paths.flatMap((path, thread) =>
    Array.from({ length: regime.viewers }, () => ({ thread, path })),
  );
  const connected = reader.next('connected', 60_000);
  reader.tell({
    type: 'connect',
    port: target.port,
    headers: target.headers,
    greeted: target.greeted,
    viewers,
    threads: threads.length,
    frames: regime.frames,
  });
  await connected;
  await untilQuiet(target.pid);
  const added = residentBytesOf(target.pid) - residentBefore;
  const bytesPerThread = threads.length < MANY_THREADS ? null : added / threads.length;

  const flooded = regime.perSecond === null;
  const off = flooded
    ? reader.on('progress', ({ counts }) => load.tell({ type: 'taken', threads, counts }))
    : () => undefined;
  const seconds = regime.perSecond === null ? 0 : regime.frames / regime.perSecond;
  const arrived = reader.next('arrived', (seconds * 3 + 60) * 1000);
  const cpuBefore = cpuTimeOf(target.pid);
  const from = monotonicMicros();
  const { frames } = regime;
  if (regime.perSecond === null) load.tell({ type: 'flood', threads, frames, credit: CREDIT });
  else load.tell({ type: 'pace', threads, frames, perSecond: regime.perSecond });
  const { report } = await arrived;
  const cpuAfter = cpuTimeOf(target.pid);
  const cpu = {
    user: cpuAfter.user - cpuBefore.user,
    system: cpuAfter.system - cpuBefore.system,
    helpers: cpuAfter.helpers - cpuBefore.helpers,
  };
  const measured = { from, to: monotonicMicros() };
  off();

  const ended = reader.next('ended', 60_000);
  load.tell({ type: 'end', threads });
  // The ending is checked for losses too, but is not what a frame costs.
  const { lost, cut } = (await ended).report;
  return { cpu, measured, bytesPerThread, report: { ...report, lost, cut } };
}

/** On the clock that V8 stamps its profiles with. */
const monotonicMicros = (): number => Number(process.hrtime.bigint() / 1000n);

/** Waits until a process does nothing of its own any more, or for as long as can be borne. */
async function untilQuiet(pid: number): Promise<void> {
  const until = performance.now() + QUIET_WITHIN_MS;
  const used = () => {
    const { user, system } = cpuTimeOf(pid);
    return user + system;
  };
  let quiet = 0;
  for (let before = used(); quiet < 2 && performance.now() < until; ) {
    await wait(QUIET_LOOK_MS);
    const now = used();
    quiet = now - before <= QUIET_SECONDS ? quiet + 1 : 0;
    before = now;
  }
}

/** The streams of earlier rounds are closed by then: each ended before its round did. */
async function untilStreams(load: Part<LoadOrder>, count: number): Promise<void> {
  const until = performance.now() + 30_000;
  for (;;) {
    const counted = load.next('counted');
    load.tell({ type: 'count' });
    const { streams } = await counted;
    if (streams >= count) return;
    if (performance.now() > until) throw new Error(`only ${streams} of ${count} streams were opened`);
    await wait(50);
  }
}
