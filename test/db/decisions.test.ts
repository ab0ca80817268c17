import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { grantViewer } from '../../src/db/access.js';
import { listTransitions } from '../../src/db/audit.js';
import { approveProposal, expireUndecided, rejectProposal, requestCancel } from '../../src/db/decisions.js';
import { deleteDraft, findDraft, putDraft } from '../../src/db/drafts.js';
import { claimDue } from '../../src/db/outbox.js';
import { findBaseAndDraft, findProposalFor, readThread } from '../../src/db/proposals.js';
import { commitFailed } from '../../src/db/run-progress.js';
import { findVersion, publishVersion } from '../../src/db/versions.js';
import { deleteWorkflow } from '../../src/db/workflows.js';
import { createTestDatabase } from '../support/database.js';
import {
  completeWith,
  fenceOf,
  seedCompleted,
  seedProposal,
  seedWorkflow,
  textsOf,
} from '../support/seed.js';

const { pool } = await createTestDatabase(t);

/** Runs the rounds, four at a time: each on a workflow of its own. */
const rounds = async (count: number, play: (round: number) => Promise<void>): Promise<void> => {
  const next = Array.from({ length: count }, (_, round) => round).values();
  const work = async () => {
    for (const round of next) await play(round);
  };
  await Promise.all([work(), work(), work(), work()]);
};

const deciding = async (files: Record<string, string | null>) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedCompleted(pool, workflow, files);
  return { workflow, row, by: { proposalId: row.proposalId, userId: workflow.userId } };
};

t.test('approve applies what the run changed, deletes included, and says so in the audit', async (t) => {
  const { workflow, row, by } = await deciding({ '/a.md': 'a2', '/b.md': null, '/c.md': 'c' });
  t.same(await approveProposal(pool, by), { kind: 'ok', draftRevision: 2, filesApplied: 3, first: true });
  t.same(textsOf(await findDraft(pool, workflow)), { '/a.md': 'a2', '/c.md': 'c' });
  t.match(await findProposalFor(pool, by), {
    row: { status: 'resolved', resolution: 'approved', resolvedByUserId: 'ada', resolvedAt: String },
  });
  t.match((await listTransitions(pool, row)).at(-1), {
    from: 'completed',
    to: 'resolved',
    event: 'approve',
    actorUserId: 'ada',
    details: { files: ['/a.md', '/b.md', '/c.md'], resolutions: {}, draft_revision: 2 },
  });
  const due = await claimDue(pool, { limit: 100, node: 'n' });
  t.ok(due.some((item) => item.jobId === row.threadId));
});

t.test(
  'a second approve, whatever it asks for, gets the first answer; any other decision does not',
  async (t) => {
    const { workflow, row, by } = await deciding({ '/a.md': 'a2', '/c.md': 'c' });
    t.match(await approveProposal(pool, { ...by, files: ['/a.md'] }), { filesApplied: 1, first: true });
    await putDraft(pool, { ...workflow, baseRevision: 2, files: { '/z': 'z' } });
    t.same(await approveProposal(pool, { ...by, files: [] }), {
      kind: 'ok',
      draftRevision: 2,
      filesApplied: 1,
      first: false,
    });
    t.same(await rejectProposal(pool, by), { kind: 'already_resolved', resolution: 'approved' });
    t.equal((await listTransitions(pool, row)).filter((item) => item.event === 'approve').length, 1);
    t.same(textsOf(await findDraft(pool, workflow)), { '/a.md': 'a2', '/b.md': 'b', '/z': 'z' });
  },
);

t.test('reject leaves the draft alone and keeps its reason', async (t) => {
  const { workflow, row, by } = await deciding({ '/a.md': 'a2' });
  t.same(await rejectProposal(pool, { ...by, reason: 'no' }), { kind: 'ok', first: true });
  t.same(await rejectProposal(pool, by), { kind: 'ok', first: false });
  t.same(await approveProposal(pool, by), { kind: 'already_resolved', resolution: 'rejected' });
  t.match((await listTransitions(pool, row)).at(-1), { event: 'reject', details: { reason: 'no' } });
  t.match(await findDraft(pool, workflow), { revision: 1 });
});

t.test(
  'files that changed on both sides are a conflict, and nothing at all is applied (rule 6)',
  async (t) => {
    const { workflow, by } = await deciding({ '/a.md': 'run', '/b.md': null, '/c.md': 'c', '/d': 'same' });
    await putDraft(pool, {
      ...workflow,
      baseRevision: 1,
      files: { '/a.md': 'mine', '/b.md': 'mine', '/d': 'same' },
    });
    t.same(await approveProposal(pool, by), { kind: 'conflict', conflicts: ['/a.md', '/b.md'] });
    t.match(await findDraft(pool, workflow), { revision: 2 });
    t.same(await approveProposal(pool, { ...by, resolutions: { '/a.md': 'proposal' } }), {
      kind: 'conflict',
      conflicts: ['/b.md'],
    });
    t.same(await approveProposal(pool, { ...by, files: ['/a.md', '/d'] }), {
      kind: 'conflict',
      conflicts: ['/a.md'],
    });
    t.match(await approveProposal(pool, { ...by, resolutions: { '/a.md': 'proposal', '/b.md': 'draft' } }), {
      kind: 'ok',
      draftRevision: 3,
      filesApplied: 2,
    });
    t.same(textsOf(await findDraft(pool, workflow)), {
      '/a.md': 'run',
      '/b.md': 'mine',
      '/c.md': 'c',
      '/d': 'same',
    });
  },
);

t.test('a choice of no file, an unknown one or a repeated one is invalid', async (t) => {
  const { by } = await deciding({ '/a.md': 'a2' });
  t.match(await approveProposal(pool, { ...by, files: [] }), {
    kind: 'invalid',
    errors: [{ path: 'files' }],
  });
  t.match(await approveProposal(pool, { ...by, files: ['/x', '/a.md', '/a.md'] }), {
    kind: 'invalid',
    errors: [{ path: 'files.0' }, { path: 'files.2' }],
  });
  t.match(await approveProposal(pool, { ...by, resolutions: { '/x': 'draft' } }), {
    kind: 'invalid',
    errors: [{ path: 'resolutions./x' }],
  });
});

t.test(
  'what the run did not change is never applied, and an approval of nothing keeps the revision',
  async (t) => {
    const { workflow, by } = await deciding({ '/a.md': 'a' });
    await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/a.md': 'mine' } });
    t.match(await approveProposal(pool, by), { kind: 'ok', draftRevision: 2, filesApplied: 0 });
    t.match(textsOf(await findDraft(pool, workflow)), { '/a.md': 'mine' });
  },
);

t.test('if the draft was deleted meanwhile, applying makes it anew and resurrects nothing', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  await deleteDraft(pool, workflow);
  await completeWith(pool, row, { '/a.md': 'a', '/c.md': 'c' });
  t.match(await findBaseAndDraft(pool, row), {
    draft: null,
    generatedFiles: { '/c.md': { content: ['c'] } },
  });
  t.match(await approveProposal(pool, { ...workflow, proposalId: row.proposalId }), {
    kind: 'ok',
    draftRevision: 3,
    filesApplied: 1,
  });
  t.same(textsOf(await findDraft(pool, workflow)), { '/c.md': 'c' });
});

t.test('only the owner decides, and only what is completed', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  const by = { proposalId: row.proposalId, userId: 'ada' };
  t.same(await approveProposal(pool, by), { kind: 'not_completed' });
  t.same(await rejectProposal(pool, by), { kind: 'not_completed' });
  await completeWith(pool, row, { '/a.md': 'a2' });
  t.equal(await grantViewer(pool, { ...by, viewerId: 'vic' }), 'ok');
  t.same(await approveProposal(pool, { ...by, userId: 'vic' }), { kind: 'forbidden' });
  t.same(await rejectProposal(pool, { ...by, userId: 'vic' }), { kind: 'forbidden' });
  t.equal(await requestCancel(pool, { ...by, userId: 'vic' }), 'forbidden');
  t.same(await approveProposal(pool, { ...by, userId: 'eve' }), { kind: 'not_found' });
  t.equal(await requestCancel(pool, { ...by, userId: 'eve' }), 'not_found');
  await deleteWorkflow(pool, workflow);
  t.same(await rejectProposal(pool, by), { kind: 'not_found' });
});

t.test('a cancel is asked for once, repeated harmlessly, and too late after the end', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  const by = { proposalId: row.proposalId, userId: 'ada' };
  t.equal(await requestCancel(pool, by), 'ok');
  t.equal(await requestCancel(pool, by), 'already_cancelled');
  t.match(await readThread(pool, row), { version: 2, cancelRequestedAt: String });
  await commitFailed(
    pool,
    { ...fenceOf(row), version: 2 },
    {
      from: 'invoking',
      event: 'cancelled',
      attempt: 1,
      error: { code: 'cancelled', message: 'Cancelled.', retryable: false },
      warnings: [],
      lastFrames: null,
      finalEpoch: null,
    },
  );
  t.equal(await requestCancel(pool, by), 'already_cancelled');
  t.same(await approveProposal(pool, by), { kind: 'not_completed' });
  const done = await deciding({ '/a.md': 'x' });
  t.equal(await requestCancel(pool, done.by), 'not_processing');
});

t.test('what nobody decided expires; files and audit stay', async (t) => {
  const { workflow, row, by } = await deciding({ '/a.md': 'x' });
  const kept = await seedProposal(pool, workflow);
  await sleep(20);
  t.same(await expireUndecided(pool, { olderThanMs: 3_600_000, limit: 100 }), []);
  const expired = await expireUndecided(pool, { olderThanMs: 10, limit: 100 });
  t.ok(expired.includes(row.proposalId));
  t.notOk(expired.includes(kept.proposalId));
  t.match(await findProposalFor(pool, by), {
    row: { resolution: 'expired', resolvedByUserId: null, generatedFiles: { '/a.md': {} } },
  });
  t.match((await listTransitions(pool, row)).at(-1), { event: 'expire', actorUserId: null });
  t.same(await approveProposal(pool, by), { kind: 'already_resolved', resolution: 'expired' });
});

t.test('of two approvals at once one is made and both get its answer, 25 times', async (t) => {
  await rounds(25, async (round) => {
    const both = await deciding({ '/a.md': `a${round}` });
    const [one, two] = await Promise.all([approveProposal(pool, both.by), approveProposal(pool, both.by)]);
    const firsts = [one, two].filter((answer) => answer.kind === 'ok' && answer.first);
    if (firsts.length !== 1 || one.kind !== 'ok' || two.kind !== 'ok')
      t.fail('two approvals, not one answer');
    if ((await listTransitions(pool, both.row)).length !== 3) t.fail('not one audit row');
    if ((await findDraft(pool, both.workflow))?.revision !== 2) t.fail('applied twice');
  });
  t.pass('25 rounds');
});

t.test('a version that is published while approving holds all of the approval or nothing', async (t) => {
  await rounds(25, async () => {
    const { workflow, by } = await deciding({ '/a.md': 'a2', '/b.md': null, '/c.md': 'c' });
    const [answer, version] = await Promise.all([approveProposal(pool, by), publishVersion(pool, workflow)]);
    if (answer.kind !== 'ok' || typeof version === 'string') throw new Error('one of them failed');
    const published = await findVersion(pool, { ...workflow, versionNumber: version.versionNumber });
    const texts = JSON.stringify(textsOf(published?.files ? { files: published.files } : null));
    const before = JSON.stringify({ '/a.md': 'a', '/b.md': 'b' });
    const after = JSON.stringify({ '/a.md': 'a2', '/c.md': 'c' });
    if (texts !== before && texts !== after) t.fail(`half of it: ${texts}`);
  });
  t.pass('25 rounds');
});

t.test('a draft that is put while approving is never overwritten silently', async (t) => {
  await rounds(25, async () => {
    const { workflow, by } = await deciding({ '/a.md': 'run' });
    const [answer, put] = await Promise.all([
      approveProposal(pool, by),
      putDraft(pool, { ...workflow, baseRevision: 1, files: { '/a.md': 'mine' } }),
    ]);
    const text = (await findDraft(pool, workflow))?.files['/a.md']?.content;
    const approved = answer.kind === 'ok' && put.kind === 'conflict' && text === 'run';
    const mine = answer.kind === 'conflict' && put.kind === 'ok' && text === 'mine';
    if (!approved && !mine) t.fail(`${answer.kind} ${put.kind} ${text}`);
  });
  t.pass('25 rounds');
});
