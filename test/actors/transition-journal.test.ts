import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import t, { type Test } from 'tap';
import { createTransitionJournal } from '../../src/actors/transition-journal.js';
import { requestCancel } from '../../src/db/decisions.js';
import { createPool, DatabaseTimeout } from '../../src/db/pool.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitCompleted, commitPhase, commitRetry, type Fence } from '../../src/db/run-progress.js';
import { nameOf } from '../../src/db/statement.js';
import { readThread, takeOver } from '../../src/db/threads.js';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { completeWith, lastFrames, seedProposal, seedWorkflow, wireFile } from '../support/seed.js';

const { pool, url } = await createTestDatabase(t);

async function bench(t: Test, db: CommonQueryMethods = pool) {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const tries: string[] = [];
  const moved: ThreadRow[] = [];
  const journal = createTransitionJournal(
    {
      db,
      node: 'node-1',
      newId: randomUUID,
      sleep: async (milliseconds) => void (await wait(milliseconds)),
      delayMs: () => 5,
      queryDeadlineMs: 30_000,
      onMoved: (now) => moved.push(now),
      log: { warn: () => undefined },
    },
    row,
  );
  t.teardown(() => journal.abort());
  const phase =
    (to: 'streaming' | 'reconnecting', before?: () => Promise<unknown>) => async (fence: Fence) => {
      tries.push(fence.transitionId);
      await before?.();
      return commitPhase(db, fence, { from: 'invoking', to, event: `run.${to}`, attempt: 1 });
    };
  const complete = (fence: Fence) => {
    tries.push(fence.transitionId);
    return commitCompleted(db, fence, {
      from: 'streaming',
      event: 'runtime.ended',
      attempt: 1,
      generatedFiles: { '/a.md': wireFile('two') },
      warnings: [],
      lastFrames,
      finalEpoch: '1.1',
    });
  };
  const now = async () => (await readThread(pool, { proposalId: row.proposalId })) as ThreadRow;
  return { row, journal, tries, moved, phase, complete, now };
}

/** A pool behind a gate that can lose answers and shut. */
async function behindGate(t: Test) {
  const gate = await createDatabaseGate(url);
  const db = await createPool({ url: gate.url, maximumPoolSize: 1, applicationName: 'behind a gate' });
  t.teardown(async () => {
    gate.shut();
    await db.end();
  });
  return { gate, db };
}

const cancel = (row: ThreadRow) => requestCancel(pool, { proposalId: row.proposalId, userId: 'ada' });
const notCancelled = (row: ThreadRow) => row.cancelRequestedAt === null;

t.test('commits follow one another, each on the version of the one before', async (t) => {
  const { journal, phase, now } = await bench(t);
  const outcomes = await Promise.all([
    journal.append(phase('streaming')),
    journal.append(phase('reconnecting')),
    journal.append(phase('streaming')),
  ]);
  t.strictSame(outcomes, Array(3).fill({ kind: 'committed' }));
  t.equal(journal.version(), 4);
  t.match(await now(), { version: 4, phase: 'streaming' });
});

t.test('a commit whose answer was lost is found by its id and not made again (rule 2)', async (t) => {
  const { gate, db } = await behindGate(t);
  const { journal, phase, tries, now } = await bench(t, db);
  await readThread(db, { threadId: randomUUID() });
  const outcome = await journal.append(phase('streaming', async () => gate.set('cut_at_answer')));
  t.strictSame(outcome, { kind: 'committed' });
  t.equal(tries.length, 1);
  t.equal(journal.version(), 2);
  t.match(await now(), { version: 2 });
});

t.test(
  'a commit that is made between the look for it and the look at its row is found by its second try (rule 2)',
  async (t) => {
    for (const then of ['its own record', 'another record'] as const) {
      let late: (() => Promise<unknown>) | null = null;
      // The row is read behind the look for the transition: that is when the first try gets through.
      const db: CommonQueryMethods = {
        ...pool,
        async maybeOne(query) {
          if (nameOf(query.sql) === 'read_thread_of_proposal') await late?.();
          return pool.maybeOne(query);
        },
      };
      const { row, journal, tries, now } = await bench(t, db);
      const outcome = await journal.append(async (fence) => {
        tries.push(fence.transitionId);
        const move = {
          from: 'invoking',
          event: 'attempt.failed',
          attempt: 1,
          outcome: 'lost',
          nextAttempt: 2,
        };
        const commit = (by: Fence) => commitRetry(pool, by, { ...move, nextJobId: randomUUID() });
        if (tries.length > 1) return commit(fence);
        late = async () => {
          late = null;
          await commit(then === 'its own record' ? fence : { ...fence, transitionId: randomUUID() });
        };
        throw new DatabaseTimeout(1_000);
      });
      t.equal(tries.length, 2);
      t.match(await now(), { attempt: 2, version: 2 }, 'made once');
      if (then === 'its own record') {
        t.strictSame(outcome, { kind: 'committed' });
        t.equal(journal.version(), 2);
      } else
        t.match(outcome, { kind: 'refused', error: { code: '23505' } }, 'somebody else’s stands in the way');
      t.equal(row.version, 1);
    }
  },
);

t.test(
  'a commit that was not made, on a row that has not moved, is made again under the same id',
  async (t) => {
    const { journal, phase, tries, now } = await bench(t);
    let failed = false;
    const outcome = await journal.append(
      phase('streaming', async () => {
        if (failed) return;
        failed = true;
        throw new Error('nothing was sent');
      }),
    );
    t.strictSame(outcome, { kind: 'committed' });
    t.equal(tries.length, 2);
    t.equal(new Set(tries).size, 1);
    t.match(await now(), { version: 2 });
  },
);

t.test(
  'with the database away commits wait, and are made in their order when it is back (rule 17)',
  async (t) => {
    const { gate, db } = await behindGate(t);
    const { row, journal, phase } = await bench(t, db);
    gate.shut();
    const order: number[] = [];
    const commits = (['streaming', 'reconnecting', 'streaming'] as const).map((to, index) =>
      journal.append(phase(to)).then((outcome) => {
        order.push(index);
        return outcome;
      }),
    );
    await wait(100);
    t.strictSame(order, []);
    await gate.open();
    t.strictSame(await Promise.all(commits), Array(3).fill({ kind: 'committed' }));
    t.strictSame(order, [0, 1, 2]);
    t.match(await readThread(pool, { proposalId: row.proposalId }), { version: 4, phase: 'streaming' });
  },
);

t.test('where the row has moved the commit is asked for again, or given up', async (t) => {
  const going = await bench(t);
  await cancel(going.row);
  t.strictSame(
    await going.journal.append(going.phase('streaming')),
    { kind: 'committed' },
    'goes on by default',
  );
  t.equal(new Set(going.tries).size, 1);

  const stopping = await bench(t);
  await cancel(stopping.row);
  const asked: ThreadRow[] = [];
  const outcome = await stopping.journal.append(stopping.complete, (row) => {
    asked.push(row);
    return notCancelled(row);
  });
  t.match(outcome, { kind: 'moved', row: { version: 2 } });
  t.strictSame(
    asked.map(({ version }) => version),
    [1, 2],
    'of the row that it knew, and of the row as it is',
  );
  t.match(await stopping.now(), { status: 'processing', version: 2 });
});

t.test('a cancel that an earlier commit has followed still stops the completion', async (t) => {
  const { row, journal, phase, complete, tries, now } = await bench(t);
  await cancel(row);
  t.strictSame(await journal.append(phase('streaming')), { kind: 'committed' });
  tries.length = 0;
  t.match(await journal.append(complete, notCancelled), { kind: 'moved', row: { version: 2 } });
  t.equal(tries.length, 0, 'what was decided without the cancel is not even tried');
  t.match(await now(), { status: 'processing' });
});

t.test('another owner, an end, and content that is refused are outcomes of their own', async (t) => {
  const lost = await bench(t);
  const taken = await takeOver(pool, {
    threadId: lost.row.threadId,
    fromNode: 'node-1',
    fromGeneration: 1,
    fromBeat: null,
    toNode: 'node-2',
    transitionId: randomUUID(),
  });
  t.match(await lost.journal.append(lost.phase('streaming')), { kind: 'lost', row: { ownerNode: 'node-2' } });
  t.match(await lost.now(), { version: taken?.version ?? 0 });

  const ended = await bench(t);
  await completeWith(pool, ended.row, { '/a.md': 'x' });
  t.match(await ended.journal.append(ended.phase('streaming')), {
    kind: 'finished',
    row: { status: 'completed' },
  });

  const refused = await bench(t);
  const outcome = await refused.journal.append((fence) =>
    commitPhase(pool, fence, { from: 'a\u0000b', to: 'streaming', event: 'x', attempt: 1 }),
  );
  t.equal(outcome.kind, 'refused');
  t.match(
    await refused.journal.append(refused.phase('streaming')),
    { kind: 'committed' },
    'the next one is not held up',
  );
});

t.test('a journal that is adopted writes under the new generation', async (t) => {
  const { row, journal, phase, now } = await bench(t);
  const change = { threadId: row.threadId, fromBeat: null };
  await takeOver(pool, {
    ...change,
    fromNode: 'node-1',
    fromGeneration: 1,
    toNode: 'node-2',
    transitionId: randomUUID(),
  });
  const back = await takeOver(pool, {
    ...change,
    fromNode: 'node-2',
    fromGeneration: 2,
    toNode: 'node-1',
    transitionId: randomUUID(),
  });
  t.match(await journal.append(phase('streaming')), { kind: 'lost' }, 'the old generation writes nothing');
  journal.adopt(back as ThreadRow);
  t.equal(journal.generation(), 3);
  t.match(await journal.append(phase('streaming')), { kind: 'committed' });
  t.match(await now(), { version: 4, ownerGeneration: 3 });
});

t.test(
  'what was decided before a take-over is not committed when the thread has come back (rule 2)',
  async (t) => {
    const { row, journal, phase, now } = await bench(t);
    let taken: ThreadRow | null = row;
    const outcome = await journal.append(
      phase('streaming', async () => {
        if (taken?.ownerGeneration !== 1) return;
        for (const toNode of ['node-2', 'node-1']) {
          const { threadId, ownerNode: fromNode, ownerGeneration: fromGeneration } = taken as ThreadRow;
          const change = { threadId, fromNode, fromGeneration, fromBeat: null, toNode };
          taken = await takeOver(pool, { ...change, transitionId: randomUUID() });
        }
        journal.adopt(taken as ThreadRow);
      }),
    );
    t.match(outcome, { kind: 'moved', row: { ownerGeneration: 3 } });
    t.match(await now(), { version: 3, phase: 'invoking' });
    t.match(await journal.append(phase('streaming')), { kind: 'committed' }, 'what is decided now is');
  },
);

t.test('after an abort nothing is tried any more', async (t) => {
  const { gate, db } = await behindGate(t);
  const { journal, phase, tries, now } = await bench(t, db);
  gate.shut();
  const waiting = journal.append(phase('streaming'));
  await wait(30);
  journal.abort();
  t.match(await waiting, { kind: 'aborted' });
  const before = tries.length;
  t.match(await journal.append(phase('streaming')), { kind: 'aborted' });
  t.equal(tries.length, before);
  t.match(await now(), { version: 1 });
});

t.test('a row that is not there any more ends the journal', async (t) => {
  const { row } = await bench(t);
  const journal = createTransitionJournal(
    {
      db: pool,
      node: 'node-1',
      newId: randomUUID,
      sleep: async () => undefined,
      delayMs: () => 0,
      queryDeadlineMs: 1_000,
      onMoved: () => undefined,
      log: { warn: () => undefined },
    },
    { ...row, proposalId: randomUUID() },
  );
  const move = { from: 'a', to: 'streaming', event: 'x', attempt: 1 } as const;
  t.match(await journal.append((fence) => commitPhase(pool, fence, move)), { kind: 'aborted' });
});

t.test(
  'a change of somebody else’s that a commit finds is told: no later look at the row would (rule 4)',
  async (t) => {
    const { row, journal, moved, phase, now } = await bench(t);
    t.match(await journal.append(phase('streaming', () => cancel(row))), { kind: 'committed' });
    t.match(moved, [{ version: 2, cancelRequestedAt: String }]);
    t.equal((await now()).version, journal.version(), 'the row is as new as the journal’s');
  },
);
