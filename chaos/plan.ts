import { createRandom, type Random } from './random.js';

export const replicas = ['orchestrator-1', 'orchestrator-2', 'orchestrator-3'] as const;
export type Replica = (typeof replicas)[number];
/** Whose connection is disturbed: those of viewers, or a replica's own to the runtime or the database. */
export const sides = ['viewers', 'runtime', 'database'] as const;
export type Side = (typeof sides)[number];

/** `backend`: one connection's process of PostgreSQL; `postgres`: the server with all of them. */
export type Victim = Replica | 'runtime' | 'postgres' | 'backend';

export type Fault = { atMs: number } & (
  | { kind: 'kill'; victim: Victim }
  | { kind: 'terminate'; victim: Replica }
  | { kind: 'freeze'; victim: Victim; forMs: number }
  | { kind: 'cut'; replica: Replica; side: Side }
  | { kind: 'hold'; replica: Replica; side: Side; forMs: number }
  | { kind: 'delay'; replica: Replica; side: Side; forMs: number; byMs: number }
  | { kind: 'slice'; replica: Replica; side: Side; forMs: number; bytes: number }
);

type Draw = (random: Random, share: number) => Fault extends infer One ? Omit<One & Fault, 'atMs'> : never;

/** The replica that is spared in the last part of a campaign: its memory has then seen hundreds of runs. */
const spared: Replica = 'orchestrator-1';
const sparedFrom = 0.6;

const freezeMs = (random: Random) => Math.round(random.between(500, 8_000));
const someWhile = (random: Random) => Math.round(random.between(2_000, 10_000));
const link = (random: Random) => ({ replica: random.pick(replicas), side: random.pick(sides) });
const killable = (random: Random, share: number): Replica =>
  random.pick(share < sparedFrom ? replicas : replicas.filter((name) => name !== spared));

/** How often each fault comes in 100 seconds, and what it is. */
const kinds: readonly { per100s: number; draw: Draw }[] = [
  { per100s: 15, draw: (random, share) => ({ kind: 'kill', victim: killable(random, share) }) },
  { per100s: 2, draw: (random, share) => ({ kind: 'terminate', victim: killable(random, share) }) },
  { per100s: 5.5, draw: () => ({ kind: 'kill', victim: 'postgres' }) },
  { per100s: 2.5, draw: () => ({ kind: 'kill', victim: 'backend' }) },
  { per100s: 2, draw: () => ({ kind: 'kill', victim: 'runtime' }) },
  {
    per100s: 4,
    draw: (random) => ({ kind: 'freeze', victim: random.pick(replicas), forMs: freezeMs(random) }),
  },
  { per100s: 1.5, draw: (random) => ({ kind: 'freeze', victim: 'runtime', forMs: freezeMs(random) }) },
  { per100s: 1.5, draw: (random) => ({ kind: 'freeze', victim: 'postgres', forMs: freezeMs(random) }) },
  { per100s: 2.5, draw: (random) => ({ kind: 'freeze', victim: 'backend', forMs: freezeMs(random) }) },
  { per100s: 10, draw: (random) => ({ kind: 'cut', ...link(random) }) },
  { per100s: 4, draw: (random) => ({ kind: 'hold', ...link(random), forMs: freezeMs(random) }) },
  {
    per100s: 3,
    draw: (random) => ({
      kind: 'delay',
      ...link(random),
      forMs: someWhile(random),
      byMs: random.whole(5, 200),
    }),
  },
  {
    per100s: 3,
    draw: (random) => ({
      kind: 'slice',
      ...link(random),
      forMs: someWhile(random),
      bytes: random.whole(1, 200),
    }),
  },
];

/**
 * Every fault of a campaign, in the order of time: a function of seed and length alone. Each kind is spread evenly,
 * one fault at a random moment of each of its shares of the time, so that the counts follow from the length.
 */
export function planOf(seed: string, seconds: number): Fault[] {
  const faults = kinds.flatMap(({ per100s, draw }, index) => {
    const random = createRandom(`${seed}/fault ${index}`);
    const count = Math.round((per100s * seconds) / 100);
    return Array.from({ length: count }, (_, number): Fault => {
      const share = (number + random.next()) / count;
      return { ...draw(random, share), atMs: Math.round(share * seconds * 1_000) } as Fault;
    });
  });
  return faults.sort((one, other) => one.atMs - other.atMs);
}
