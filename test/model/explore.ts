import { createLives } from './lives.js';
import { type Laws, openActor } from './replica.js';
import type { Rules } from './rules.js';
import { faults, freeSteps, type Step } from './steps.js';
import { Breach, firstWorld, keyOf, sides, type World, worldOf } from './world.js';

export interface Explored {
  worlds: number;
  steps: number;
  /** Worlds in which nothing goes on by itself. */
  ends: number;
  /** Distinct snapshots of the real machine that were met. */
  machines: number;
  /** Worlds first met with so many faults. */
  byFaults: number[];
  /** The first thing that is wrong, with the steps that lead to it; null = nothing. */
  breach: { what: string; steps: string[] } | null;
}

/** What must be so when nothing goes on by itself any more. */
function faultAtEnd({ row, jobs, viewers }: World): string | null {
  if (row.status === 'processing') return 'the thread never ends';
  for (const [number, viewer] of viewers.entries())
    if (!viewer.ended) return `viewer ${number} waits for ever`;
  if (jobs.some(({ state }) => state === 'running')) return 'a run goes on that nobody waits for';
  if (row.ordered !== 0) return 'a clean-up is never confirmed';
  if (row.cancel && row.status !== 'failed') return 'a cancel was committed first, and lost';
  return null;
}

/**
 * One history: steps at random, so many faults among them, then on until nothing goes on by itself.
 *
 * @param random from 0 up to 1
 */
export function walk(laws: Laws, maxFaults: number, random: () => number): Explored['breach'] {
  const free = freeSteps(laws);
  const wrong = faults(laws);
  const pick = (steps: readonly Step[]) => steps[Math.floor(random() * steps.length)];
  const world = firstWorld();
  const steps: string[] = [];
  for (const side of sides) openActor(laws, world, side);
  for (let left = maxFaults; steps.length < 500; ) {
    const possible = free.filter((step) => step.can(world));
    const isFault = left > 0 && (possible.length === 0 || random() < 0.2);
    const step = pick(isFault ? wrong.filter((one) => one.can(world)) : possible);
    if (step === undefined) break;
    if (isFault) left--;
    steps.push(step.name);
    try {
      step.take(world);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      return { what: error.message, steps };
    }
  }
  const what = steps.length < 500 ? faultAtEnd(world) : 'something is repeated for ever';
  return what === null ? null : { what, steps };
}

/** What one history comes to, given by the names of its steps; null where one of them cannot be taken, or none harms. */
export function follow(rules: Rules, steps: readonly string[]): string | null {
  const laws: Laws = { lives: createLives(), rules };
  const known = new Map([...freeSteps(laws), ...faults(laws)].map((step) => [step.name, step]));
  const world = firstWorld();
  for (const side of sides) openActor(laws, world, side);
  for (const name of steps) {
    const step = known.get(name);
    if (step === undefined) throw new Error(`there is no step "${name}"`);
    if (!step.can(world)) return null;
    try {
      step.take(world);
    } catch (error) {
      if (error instanceof Breach) return error.message;
      throw error;
    }
  }
  return null;
}

/** Pairs of numbers, for millions of them. */
function createPairs() {
  let pairs = new Int32Array(1 << 16);
  let length = 0;
  return {
    push(one: number, other: number): void {
      if (length * 2 === pairs.length) {
        const bigger = new Int32Array(pairs.length * 2);
        bigger.set(pairs);
        pairs = bigger;
      }
      pairs[length * 2] = one;
      pairs[length * 2 + 1] = other;
      length++;
    },
    *[Symbol.iterator](): Generator<readonly [number, number]> {
      for (let at = 0; at < length; at++) yield [pairs[at * 2] ?? 0, pairs[at * 2 + 1] ?? 0];
    },
  };
}

/** A world from which free steps come round again; null where all of them come to an end. */
function circling(worlds: number, edges: Iterable<readonly [from: number, to: number]>): number | null {
  const leaving = new Uint32Array(worlds);
  const firsts = new Uint32Array(worlds + 1);
  for (const [from, to] of edges) {
    leaving[from] = (leaving[from] ?? 0) + 1;
    firsts[to + 1] = (firsts[to + 1] ?? 0) + 1;
  }
  for (let world = 0; world < worlds; world++)
    firsts[world + 1] = (firsts[world + 1] ?? 0) + (firsts[world] ?? 0);
  const sources = new Uint32Array(firsts[worlds] ?? 0);
  const filled = firsts.slice();
  for (const [from, to] of edges) {
    const at = filled[to] ?? 0;
    sources[at] = from;
    filled[to] = at + 1;
  }
  // Worlds are taken away once everything that follows them is: what is left goes round, or leads to it.
  const done: number[] = [];
  for (let world = 0; world < worlds; world++) if (leaving[world] === 0) done.push(world);
  for (const world of done) {
    for (const from of sources.subarray(firsts[world], firsts[world + 1])) {
      const left = (leaving[from] ?? 0) - 1;
      leaving[from] = left;
      if (left === 0) done.push(from);
    }
  }
  return done.length === worlds ? null : leaving.findIndex((count) => count > 0);
}

/**
 * Every world that can be reached with so many faults, breadth first: first without any, then one fault after each of
 * those, and so on. Stops at the first breach.
 *
 * @param limit throws where there are more worlds: the answer would be none
 */
export function explore(rules: Rules, maxFaults: number, limit: number): Explored {
  const laws: Laws = { lives: createLives(), rules };
  const free = freeSteps(laws);
  const wrong = faults(laws);
  const numbers = new Map<string, number>();
  const parents: number[] = [];
  const labels: string[] = [];
  const edges = createPairs();
  const explored: Explored = { worlds: 0, steps: 0, ends: 0, machines: 0, byFaults: [], breach: null };

  const pathTo = (number: number): string[] => {
    const steps: string[] = [];
    for (let at = number; at > 0; at = parents[at] ?? 0) steps.unshift(labels[at] ?? '');
    return steps;
  };
  const fail = (what: string, number: number, last: string[] = []) => {
    explored.breach ??= { what, steps: [...pathTo(number), ...last] };
  };
  const visit = (key: string, parent: number, label: string): number => {
    const number = numbers.size;
    if (number >= limit) throw new Error(`there are more than ${limit} worlds`);
    numbers.set(key, number);
    parents.push(parent);
    labels.push(label);
    return number;
  };
  /** The key of the world after a step; null where the step breaks a rule. */
  const after = (key: string, number: number, step: Step): string | null => {
    const world = worldOf(key);
    explored.steps++;
    try {
      step.take(world);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      fail(error.message, number, [step.name]);
      return null;
    }
    return keyOf(world);
  };

  const first = firstWorld();
  openActor(laws, first, 0);
  openActor(laws, first, 1);
  let queue = [keyOf(first)];
  visit(queue[0] ?? '', 0, '');
  for (let used = 0; used <= maxFaults && explored.breach === null; used++) {
    const ahead = new Map<string, [parent: number, label: string]>();
    for (const key of queue) {
      const number = numbers.get(key) ?? 0;
      const world = worldOf(key);
      let goesOn = false;
      for (const step of free) {
        if (!step.can(world)) continue;
        goesOn = true;
        const next = after(key, number, step);
        if (next === null) break;
        let reached = numbers.get(next);
        if (reached === undefined) {
          reached = visit(next, number, step.name);
          queue.push(next);
        }
        edges.push(number, reached);
      }
      if (!goesOn) {
        explored.ends++;
        const what = faultAtEnd(world);
        if (what !== null) fail(what, number);
      }
      for (const step of used < maxFaults && explored.breach === null ? wrong : []) {
        const next = step.can(world) ? after(key, number, step) : null;
        if (next !== null && !numbers.has(next) && !ahead.has(next)) ahead.set(next, [number, step.name]);
      }
      if (explored.breach !== null) break;
    }
    explored.byFaults.push(numbers.size - explored.byFaults.reduce((sum, one) => sum + one, 0));
    // What was reached with fewer faults was looked at with more of them to come.
    queue = [];
    for (const [key, [parent, label]] of ahead) {
      if (numbers.has(key)) continue;
      visit(key, parent, label);
      queue.push(key);
    }
  }
  explored.worlds = numbers.size;
  explored.machines = laws.lives.size;
  const circle = explored.breach === null ? circling(numbers.size, edges) : null;
  if (circle !== null) fail('something is repeated for ever', circle);
  return explored;
}
