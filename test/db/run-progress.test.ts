import { randomUUID } from 'node:crypto';
import t from 'tap';
import { listTransitions } from '../../src/db/audit.js';
import { requestCancel } from '../../src/db/decisions.js';
import { createListener } from '../../src/db/listen.js';
import { claimDue, pendingCount } from '../../src/db/outbox.js';
import { isContentError, isUnknownOutcome } from '../../src/db/pool.js';
import { findProposalFor, readAttempts, readLastFrames, readThread } from '../../src/db/proposals.js';
import {
  commitCompleted,
  commitFailed,
  commitPhase,
  commitRetry,
  findTransition,
  giveUp,
} from '../../src/db/run-progress.js';
import { createTestDatabase } from '../support/database.js';
import { fenceOf, lastFrames, seedProposal, seedWorkflow, wireFile } from '../support/seed.js';
import { until } from '../support/until.js';

const { pool, url } = await createTestDatabase(t);

const opened = { from: 'invoking', to: 'streaming', event: 'runtime.opened', attempt: 1 } as const;
const result = {
  from: 'finalizing',
  event: 'runtime.ended',
  attempt: 1,
  generatedFiles: { '/a.md': wireFile('new') },
  warnings: [{ code: 'unsafe_path', path: '/../x', message: 'left out' }],
  lastFrames,
  finalEpoch: '1.1',
};
const failure = {
  from: 'streaming',
  event: 'runtime.failed',
  attempt: 1,
  error: { code: 'stalled', message: 'The run went silent.', retryable: true },
  warnings: [],
  lastFrames: null,
  finalEpoch: null,
};

t.test('a phase is committed with what the runtime said, and can be looked up', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const fence = fenceOf(row);
  t.equal(await findTransition(pool, fence), null);
  const done = await commitPhase(pool, fence, { ...opened, runtimeThreadId: 'rt-1', runtimeEpoch: '1' });
  t.same(done, { version: row.version + 1 });
  t.same(await findTransition(pool, fence), done);
  t.match(await readThread(pool, row), {
    phase: 'streaming',
    runtimeThreadId: 'rt-1',
    runtimeEpoch: '1',
    version: 2,
  });
  await commitPhase(pool, { ...fenceOf(row), version: 2 }, { ...opened, to: 'finalizing' });
  t.match(await readThread(pool, row), { phase: 'finalizing', runtimeThreadId: 'rt-1' }, 'and it stays');
});

t.test('a stale version, a stale generation or a repeated commit touches nothing (rule 1)', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const fence = fenceOf(row);
  t.equal(await commitPhase(pool, { ...fence, version: 9 }, opened), null);
  t.equal(await commitPhase(pool, { ...fence, generation: 9 }, opened), null);
  t.equal(await commitCompleted(pool, { ...fence, generation: 9 }, result), null);
  t.equal(await commitFailed(pool, { ...fence, version: 9 }, failure), null);
  t.equal(await giveUp(pool, { ...fence, version: 9 }, { from: 'invoking', attempt: 1 }), null);
  t.same({ ...(await readThread(pool, row)), deadlineInMs: row.deadlineInMs }, row);
  t.equal((await listTransitions(pool, row)).length, 1);
  t.ok(await commitPhase(pool, fence, opened));
  t.equal(await commitPhase(pool, fence, opened), null, 'the same once more');
  t.equal((await listTransitions(pool, row)).length, 2);
});

t.test('completion stores files, last frames byte for byte, and frees the thread (rule 3)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  t.equal(await readLastFrames(pool, row), null);
  t.ok(await commitCompleted(pool, fenceOf(row), result));
  const found = await findProposalFor(pool, { ...workflow, proposalId: row.proposalId });
  t.match(found, {
    access: 'owner',
    row: {
      status: 'completed',
      phase: null,
      ownerNode: null,
      ownerGeneration: 1,
      completedAt: /^\d{4}-.*\.\d{3}Z$/,
      generatedFiles: result.generatedFiles,
      warnings: result.warnings,
    },
  });
  const stored = await readLastFrames(pool, row);
  t.equal(stored?.epoch, '1.1');
  t.same(
    stored?.frames.map(({ seq, bytes }) => [seq, bytes.toString()]),
    lastFrames.frames.map(({ seq, bytes }) => [seq, bytes.toString()]),
  );
  t.match(await readAttempts(pool, row), [{ attempt: 1, outcome: 'completed', endedAt: String }]);
  t.equal(await commitFailed(pool, { ...fenceOf(row), version: 2 }, failure), null, 'what ended has ended');
});

t.test('a cancel that was committed first wins over the completion (rule 4)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  t.equal(await requestCancel(pool, { ...workflow, proposalId: row.proposalId }), 'ok');
  t.equal(await commitCompleted(pool, fenceOf(row), result), null, 'by the version');
  t.equal(
    await commitCompleted(pool, { ...fenceOf(row), version: 2 }, result),
    null,
    'and by the request itself',
  );
  t.ok(await commitFailed(pool, { ...fenceOf(row), version: 2 }, failure));
});

t.test('a retry closes the attempt, orders its clean-up and opens the next (rule 15)', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  await commitPhase(pool, fenceOf(row), { ...opened, runtimeThreadId: 'rt-9' });
  const nextJobId = randomUUID();
  const before = await pendingCount(pool);
  t.ok(
    await commitRetry(
      pool,
      { ...fenceOf(row), version: 2 },
      { ...failure, nextAttempt: 2, nextJobId, outcome: 'stalled', details: { delay_ms: 10 } },
    ),
  );
  t.match(await readThread(pool, row), {
    phase: 'retrying',
    attempt: 2,
    jobId: nextJobId,
    threadId: row.threadId,
    runtimeThreadId: null,
  });
  t.match(await readAttempts(pool, row), [{ outcome: 'stalled' }, { outcome: null, endedAt: null }]);
  t.equal(await pendingCount(pool), before + 1);
  const due = await claimDue(pool, { limit: 50, node: 'node-1' });
  t.match(
    due.find((item) => item.jobId === row.threadId),
    { runtimeThreadId: 'rt-9', tries: 1 },
  );
  t.ok(await commitFailed(pool, { ...fenceOf(row), version: 3 }, { ...failure, attempt: 2, lastFrames }));
  t.equal(await pendingCount(pool), before + 2, 'the first is not ordered twice');
  t.match(await listTransitions(pool, row), [
    { from: null, to: 'invoking', event: 'start', actorUserId: 'ada', attempt: 1 },
    { from: 'invoking', to: 'streaming' },
    { to: 'retrying', attempt: 1, details: { delay_ms: 10 } },
    { to: 'failed', attempt: 2 },
  ]);
});

t.test('every commit is heard by a listener (rule 11)', async (t) => {
  const heard: string[] = [];
  const listener = createListener({
    url,
    channel: 'threads',
    onNotify: (payload) => heard.push(payload),
    onReconnect: () => {},
  });
  await listener.ready;
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  await commitPhase(pool, fenceOf(row), opened);
  await commitRetry(
    pool,
    { ...fenceOf(row), version: 2 },
    { ...failure, nextAttempt: 2, nextJobId: randomUUID(), outcome: 'stalled' },
  );
  await giveUp(pool, { ...fenceOf(row), version: 3 }, { from: 'retrying', attempt: 2 });
  await commitCompleted(pool, { ...fenceOf(row), version: 4 }, { ...result, attempt: 2 });
  const failed = await seedProposal(pool, workflow);
  await requestCancel(pool, { ...workflow, proposalId: failed.proposalId });
  await commitFailed(pool, { ...fenceOf(failed), version: 2 }, failure);
  await until(() => heard.length >= 8);
  await listener.stop();
  t.same(
    heard,
    [row, row, row, row, row, failed, failed, failed].map((thread) => thread.threadId),
  );
});

t.test('content that PostgreSQL refuses is told apart from an unknown outcome', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const refused = async (text: string) => {
    try {
      await commitCompleted(pool, fenceOf(row), { ...result, generatedFiles: { '/a': wireFile(text) } });
      return 'stored';
    } catch (error) {
      return [isContentError(error), isUnknownOutcome(error)];
    }
  };
  t.same(await refused('a\u0000b'), [true, false]);
  t.same(await refused('\ud800'), [true, false]);
  t.match(await readThread(pool, row), { status: 'processing', version: 1 });
  t.ok(await commitFailed(pool, fenceOf(row), failure), 'failed without the content');
});
