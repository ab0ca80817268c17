import t from 'tap';
import { explore, follow, walk } from './explore.js';
import { createLives } from './lives.js';
import { allRules, type Rules } from './rules.js';

/**
 * The whole of what two faults can do. Three make 2.7 million worlds (`MODEL_FAULTS=3`: half a minute, 700 MB), so
 * these, and more of them, are walked through at random.
 */
const maxFaults = Number(process.env.MODEL_FAULTS ?? 2);
const maxWorlds = 10_000_000;
const walks = 20_000;

/** mulberry32: the same numbers for the same seed, everywhere. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

t.test(
  'two replicas and whatever two faults do to them: every viewer gets its end, and no second run exists (rules 1, 2, 4, 7, 9, 10, 11)',
  async (t) => {
    const { breach, worlds, steps, ends, machines } = explore(allRules, maxFaults, maxWorlds);
    t.equal(breach, null);
    t.ok(worlds > 100_000 && ends > 500, 'there is something to explore');
    t.comment(`${worlds} worlds, ${steps} steps, ${ends} ends, ${machines} snapshots of the machine`);
  },
);

t.test(
  'histories with three to six faults, taken at random, come to the same (rules 1, 2, 10)',
  async (t) => {
    const laws = { lives: createLives(), rules: allRules };
    let breach: ReturnType<typeof walk> = null;
    let seed = 0;
    while (breach === null && seed++ < walks) breach = walk(laws, 3 + (seed % 4), randomOf(seed));
    t.equal(breach, null, `seed ${seed}`);
  },
);

/** What is seen first where a rule is left out, and how many faults that takes. */
const harms: Record<Exclude<keyof Rules, 'decidedAnew'>, [faults: number, harm: string | RegExp]> = {
  version: [2, 'an attempt was opened after the cancel'],
  generation: [1, /of a superseded generation was committed/],
  lookUp: [1, 'something is repeated for ever'],
  revival: [1, 'the thread never ends'],
  cleanUpFirst: [1, 'two runs of a thread are unfinished'],
  readerJudgesNothing: [0, 'a viewer got its end before the commit'],
  resetOnForeignEpoch: [1, /a viewer in 11 got a frame of 12/],
  reread: [1, /viewer \d waits for ever/],
  takeOver: [1, 'the thread never ends'],
  tombstone: [2, 'a job began after its clean-up'],
};

t.test('with any rule left out the model finds the harm that it keeps off', async (t) => {
  for (const [rule, [faults, harm]] of Object.entries(harms)) {
    const { breach } = explore({ ...allRules, [rule]: false }, faults, maxWorlds);
    t.match(breach, { what: harm }, rule);
  }
});

/** Found among the millions of worlds that three faults make. */
const backAgain = [
  'A invokes its job',
  'A is stopped',
  'B takes the thread over',
  'A goes on after its stop',
  'A hears nothing of its run for too long',
  'A hears the answer of its commit',
  'A reads the row',
  'B is killed and starts again',
  'A takes the thread over',
  'A looks its commit up',
  'A hears the answer of its commit',
  'the clean-up of job 1 is confirmed',
  'A invokes its job',
  'A hears the answer of its commit',
];

t.test(
  'an owner that lost its thread and got it back commits nothing that it had decided before (rule 2)',
  async (t) => {
    t.equal(
      follow({ ...allRules, decidedAnew: false }, backAgain),
      'more attempts were opened than there are',
    );
    t.equal(follow(allRules, backAgain), null);
  },
);
