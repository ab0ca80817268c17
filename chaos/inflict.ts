import { setTimeout as wait } from 'node:timers/promises';
import { withDatabase } from './check/read-facts.js';
import type { House } from './house/house.js';
import type { Part } from './house/part.js';
import { signal } from './house/processes.js';
import type { Counts } from './load/counts.js';
import { type Fault, replicas, sides, type Victim } from './plan.js';
import type { Random } from './random.js';
import type { Troubles } from './troubles.js';

export interface Kill {
  part: string;
  pid: number;
  /** Milliseconds since 1970. */
  at: number;
}

/** A victim that has not come back by then is hit as it is. */
const recoveryMs = 8_000;
/** From a cut to connections that are there again. */
const reconnectMs = 1_500;

/** Carries the plan out, each fault at its time or as soon as its victim is back from the last one. */
export async function inflict(deps: {
  house: House;
  plan: readonly Fault[];
  random: Random;
  counts: Counts;
  kills: Kill[];
  troubles: Troubles;
  signal: AbortSignal;
  note: (fault: Fault) => void;
}): Promise<void> {
  const { house, counts } = deps;
  const began = performance.now();
  const queues = new Map<string, Promise<void>>();

  const partOf = (victim: Exclude<Victim, 'backend'>): Part => {
    if (victim === 'postgres') return house.postgres;
    if (victim === 'runtime') return house.runtime;
    const found = house.orchestrators.get(victim);
    if (found === undefined) throw new Error(`there is no ${victim}`);
    return found.part;
  };
  const kindOf = (victim: Victim) => victim.replace(/-\d$/, '');

  async function hit(victim: Victim, fault: Extract<Fault, { victim: Victim }>): Promise<void> {
    if (victim === 'backend') {
      await untilBack(house.postgres);
      const pid = house.postgres.pickBackend(deps.random);
      if (pid === null) return;
      counts.add(`${fault.kind} backend`);
      const recovered = deps.troubles.begin('postgres');
      if (fault.kind === 'freeze') {
        signal(pid, 'SIGSTOP');
        await wait(fault.forMs, undefined, { signal: deps.signal }).catch(() => undefined);
        signal(pid, 'SIGCONT');
      } else {
        // The server ends all its connections then, and recovers as after a crash.
        signal(pid, 'SIGKILL');
        await untilAnswers();
      }
      recovered();
      return;
    }
    const part = partOf(victim);
    await untilBack(part);
    const pid = part.pid();
    if (pid === null || deps.signal.aborted) return;
    counts.add(`${fault.kind} ${kindOf(victim)}`);
    if (fault.kind === 'freeze') {
      part.freeze();
      const thawed = deps.troubles.begin(part.name);
      await wait(fault.forMs, undefined, { signal: deps.signal }).catch(() => undefined);
      part.thaw();
      thawed();
      return;
    }
    deps.kills.push({ part: part.name, pid, at: Date.now() });
    part.end(fault.kind === 'kill' ? 'SIGKILL' : 'SIGTERM');
  }

  async function untilAnswers(): Promise<void> {
    while (!deps.signal.aborted) {
      await wait(50);
      const answers = withDatabase(house.postgres.url('postgres'), (client) => client.query('SELECT 1'));
      if (await answers.then(Boolean, () => false)) return;
    }
  }

  async function untilBack(part: Part): Promise<void> {
    await Promise.race([
      part.untilReady(),
      wait(recoveryMs, undefined, { signal: deps.signal }).catch(() => undefined),
    ]);
  }

  async function disturb(fault: Exclude<Fault, { victim: Victim }>): Promise<void> {
    const link = house.orchestrators.get(fault.replica)?.links[fault.side];
    if (link === undefined) return;
    counts.add(`${fault.kind} connections`);
    const recovered = deps.troubles.begin(fault.side === 'database' ? fault.replica : 'a link');
    if (fault.kind === 'cut') {
      link.cut();
      await wait(reconnectMs, undefined, { signal: deps.signal }).catch(() => undefined);
      return recovered();
    }
    if (fault.kind === 'hold') link.hold();
    if (fault.kind === 'delay') link.delay(fault.byMs);
    if (fault.kind === 'slice') link.slice(fault.bytes);
    await wait(fault.forMs, undefined, { signal: deps.signal }).catch(() => undefined);
    if (fault.kind === 'hold') link.release();
    if (fault.kind === 'delay') link.delay(0);
    if (fault.kind === 'slice') link.slice(0);
    recovered();
  }

  for (const fault of deps.plan) {
    const early = fault.atMs - (performance.now() - began);
    if (early > 0) await wait(early, undefined, { signal: deps.signal }).catch(() => undefined);
    if (deps.signal.aborted) break;
    deps.note(fault);
    // One after the other for each victim; side by side for different ones.
    const name = 'victim' in fault ? fault.victim : `${fault.replica} ${fault.side} ${fault.kind}`;
    const work = () => ('victim' in fault ? hit(fault.victim, fault) : disturb(fault));
    queues.set(name, (queues.get(name) ?? Promise.resolve()).then(work));
  }
  await Promise.all(queues.values());
  heal(house);
}

/** Ends every disturbance that lasts. */
function heal(house: House): void {
  house.postgres.thaw();
  house.runtime.thaw();
  for (const name of replicas) {
    const orchestrator = house.orchestrators.get(name);
    orchestrator?.part.thaw();
    for (const side of sides) {
      const link = orchestrator?.links[side];
      link?.delay(0);
      link?.slice(0);
      link?.release();
    }
  }
}
