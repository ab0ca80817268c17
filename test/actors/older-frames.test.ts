import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { createOlderFrames } from '../../src/actors/older-frames.js';
import { commitCompleted } from '../../src/db/run-progress.js';
import { addTranscriptPart, finishTranscript, packPart } from '../../src/db/transcripts.js';
import type { RuntimeLog } from '../../src/streams/runtime-log.js';
import { createTestDatabase } from '../support/database.js';
import { fenceOf, lastFrames, seedProposal, seedWorkflow, wireFile } from '../support/seed.js';

const { pool } = await createTestDatabase(t);
const workflow = await seedWorkflow(pool);

type Piece = Awaited<ReturnType<RuntimeLog['read']>>;
const frameOf = (seq: number, bytes = 10) => ({ seq, bytes: Buffer.alloc(bytes, String(seq)) });
const piece = (rest: Piece['rest'], ...numbers: number[]): Piece => ({
  frames: numbers.map((number) => ({ number, bytes: Buffer.from(String(number)) })),
  rest,
});
const partOf = async (from: number, to: number, bytes = 10) => {
  const frames = Array.from({ length: to - from + 1 }, (_, index) => frameOf(from + index, bytes));
  const part = await packPart(frames);
  if (part === null) throw new Error('a part has frames');
  return part;
};

/** Pieces of the runtime’s log come as they are given; clocks go by what is slept. */
function house(proposalId: string, pieces: (Piece | Promise<Piece>)[] = []) {
  const asked: unknown[] = [];
  const warnings: unknown[] = [];
  const state = { isFinal: false, stopped: false, clock: 0, stands: false, reads: 0 };
  const older = createOlderFrames({
    db: {
      maybeOne: (...query: Parameters<typeof pool.maybeOne>) => {
        state.reads++;
        return pool.maybeOne(...query);
      },
    } as typeof pool,
    runtimeLog: {
      async read(range) {
        asked.push(range);
        return (await pieces.shift()) ?? piece('away');
      },
    },
    proposalId,
    run: () => ({ attempt: 2, threadId: 'run' }),
    isFinal: () => state.isFinal,
    isStopped: () => state.stopped,
    async sleep(milliseconds) {
      if (!state.stands) state.clock += milliseconds;
      await wait(1);
    },
    now: () => state.clock,
    log: { warn: (what: unknown) => warnings.push(what) } as never,
  });
  const read = async (epoch: string, after: number, upTo: number) =>
    (await older.read(epoch, after, upTo)).map(({ number }) => number);
  return { older, read, asked, warnings, state };
}

/** A completed proposal with these parts of its transcript. */
async function ended(...parts: Awaited<ReturnType<typeof partOf>>[]) {
  const row = await seedProposal(pool, workflow);
  await commitCompleted(pool, fenceOf(row), {
    from: 'streaming',
    event: 'x',
    attempt: 1,
    generatedFiles: { '/a.md': wireFile('new') },
    warnings: [],
    lastFrames,
    finalEpoch: '2.1',
    transcript: { part: null, incomplete: true },
  });
  const writer = { proposalId: row.proposalId, generation: row.ownerGeneration };
  const add = (part: Awaited<ReturnType<typeof partOf>>) =>
    addTranscriptPart(pool, { ...writer, part, keepFrom: 0 });
  for (const part of parts) await add(part);
  return { row, add, finish: () => finishTranscript(pool, writer) };
}

t.test('while the run lives they come from the runtime’s log, one read at a time', async (t) => {
  let answer: (piece: Piece) => void = () => undefined;
  const slow = new Promise<Piece>((resolve) => {
    answer = resolve;
  });
  const { read, asked } = house('p', [slow, piece('whole', 8)]);
  const both = Promise.all([read('2.3', 4, 9), read('2.3', 7, 9)]);
  await wait(5);
  t.strictSame(
    asked,
    [{ threadId: 'run', epoch: '2.3', after: 4, upTo: 9 }],
    'the second waits for the first',
  );
  answer(piece('more', 5, 6));
  t.strictSame(await both, [[5, 6], [8]]);
  t.strictSame(
    await Promise.all([read('2.3', 7, 9), read('2.3', 7, 9)]),
    [[8], [8]],
    'and is kept for others',
  );
  t.strictSame(await read('1.3', 4, 9), [], 'an earlier attempt has no log any more');
  t.equal(asked.length, 2);
});

t.test(
  'a runtime that is away is asked again for a while, one that has not this log never again',
  async (t) => {
    const { read, asked, state } = house('p', [piece('away'), piece('away'), piece('whole', 5)]);
    t.strictSame(await read('2.1', 4, 9), [5]);
    t.equal(asked.length, 3);
    t.strictSame(await read('2.1', 5, 9), []);
    t.ok(state.clock >= 3_000 && state.clock < 5_000, `${state.clock} ms`);
    const gone = house('p', [piece('gone')]);
    t.strictSame(await gone.read('2.1', 4, 9), []);
    t.strictSame(await gone.read('2.1', 4, 9), []);
    t.equal(gone.asked.length, 1);
  },
);

t.test(
  'once the row is final they come from the transcript alone, each part read once (rule 18)',
  async (t) => {
    const { row, finish } = await ended(await partOf(1, 9, 100_000), await partOf(10, 12));
    await finish();
    const { read, asked, state } = house(row.proposalId);
    state.isFinal = true;
    t.strictSame(await read('2.1', 0, 11), [1, 2, 3], 'a piece of it');
    t.strictSame(await read('2.1', 3, 11), [4, 5, 6]);
    t.strictSame(await read('2.1', 7, 8), [8]);
    t.equal(state.reads, 1);
    t.strictSame(await read('2.1', 9, 11), [10, 11]);
    t.strictSame(await read('2.1', 2, 3), [3]);
    t.equal(state.reads, 3);
    t.strictSame(await read('2.1', 12, 20), []);
    t.strictSame(await read('1.1', 0, 11), [], 'earlier epochs are never replayed');
    t.strictSame([asked, state.clock], [[], 0]);
  },
);

t.test('a transcript that is being completed is waited for, and not for ever (rule 18)', async (t) => {
  const { row, add, finish } = await ended(await partOf(7, 9));
  const { read, state } = house(row.proposalId);
  state.isFinal = true;
  t.strictSame(await read('2.1', 6, 8), [7, 8], 'what is there is there');
  t.strictSame(await read('2.1', 2, 8), [7, 8], 'after the wait what is there');
  t.ok(state.clock >= 3_000);
  state.stands = true;
  const found = read('2.1', 2, 8);
  await add(await partOf(1, 6));
  t.strictSame(await found, [3, 4, 5, 6]);
  await finish();
  const partial = await ended(await partOf(7, 9));
  await partial.finish();
  const other = house(partial.row.proposalId);
  other.state.isFinal = true;
  t.strictSame(await other.read('2.1', 2, 8), [7, 8], 'one that was given up is not waited for');
  t.equal(other.state.clock, 0);
});

t.test('a run that ends while its log is asked for is read from its transcript', async (t) => {
  const { row, finish } = await ended(await partOf(1, 9));
  await finish();
  const { read, state } = house(row.proposalId, [
    wait(5).then(() => {
      state.isFinal = true;
      return piece('away');
    }),
  ]);
  t.strictSame(await read('2.1', 6, 8), [7, 8]);
});

t.test('a database that does not answer is nothing to be had, after a while', async (t) => {
  const { read, warnings, state } = house('no uuid');
  state.isFinal = true;
  t.strictSame(await read('2.1', 0, 8), []);
  t.equal(warnings.length, 1);
  t.ok(state.clock >= 3_000);
  state.stopped = true;
  t.strictSame(await read('2.1', 0, 8), []);
});
