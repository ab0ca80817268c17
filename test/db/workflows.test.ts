import { randomUUID } from 'node:crypto';
import t from 'tap';
import { listTransitions } from '../../src/db/audit.js';
import { deleteDraft, findDraft, putDraft } from '../../src/db/drafts.js';
import { claimDue } from '../../src/db/outbox.js';
import { named } from '../../src/db/pool.js';
import { findProposalFor, findThreadFor, readThread } from '../../src/db/proposals.js';
import { noRow } from '../../src/db/statement.js';
import { deployVersion, findVersion, listVersions, publishVersion } from '../../src/db/versions.js';
import {
  createWorkflow,
  deleteWorkflow,
  findWorkflow,
  listWorkflows,
  updateWorkflow,
} from '../../src/db/workflows.js';
import { createTestDatabase } from '../support/database.js';
import { seedCompleted, seedProposal, seedWorkflow, textsOf } from '../support/seed.js';

const { pool } = await createTestDatabase(t);

t.test('a workflow is seen by its owner only, and changed field by field', async (t) => {
  const id = randomUUID();
  const made = await createWorkflow(pool, { id, userId: 'eve', name: 'One', description: 'd', files: null });
  t.match(made, { id, name: 'One', description: 'd', productionVersion: null, draftRevision: 0 });
  t.same(await findWorkflow(pool, { workflowId: id, userId: 'eve' }), made);
  t.equal(await findWorkflow(pool, { workflowId: id, userId: 'bob' }), null);
  t.equal(await updateWorkflow(pool, { workflowId: id, userId: 'bob', name: 'x' }), null);
  t.match(await updateWorkflow(pool, { workflowId: id, userId: 'eve', name: 'Two' }), {
    name: 'Two',
    description: 'd',
  });
  t.match(await updateWorkflow(pool, { workflowId: id, userId: 'eve', description: null }), {
    name: 'Two',
    description: null,
  });
  t.equal(await findDraft(pool, { workflowId: id }), null, 'no files, no draft');
});

t.test('pages of workflows join without a gap or a repeat', async (t) => {
  for (let index = 0; index < 7; index++) await seedWorkflow(pool, { userId: 'pager', files: null });
  const seen: string[] = [];
  let cursor: { createdAt: string; id: string } | null = null;
  for (;;) {
    const page: { createdAt: string; id: string }[] = await listWorkflows(pool, {
      userId: 'pager',
      limit: 3,
      cursor,
    });
    const last = page.at(-1);
    if (!last) break;
    seen.push(...page.map((row) => row.id));
    cursor = { createdAt: last.createdAt, id: last.id };
  }
  t.equal(seen.length, 7);
  t.equal(new Set(seen).size, 7);
});

t.test('files given at the creation make the draft with revision 1', async (t) => {
  const workflow = await seedWorkflow(pool, { files: { '/x.md': 'é' } });
  t.match(await findDraft(pool, workflow), {
    revision: 1,
    files: { '/x.md': { content: 'é', revision: 1, sha256: /^[0-9a-f]{64}$/, updatedAt: String } },
  });
});

t.test('a draft is merged: named paths are set, null deletes, others stay', async (t) => {
  const workflow = await seedWorkflow(pool);
  const put = await putDraft(pool, {
    ...workflow,
    baseRevision: 1,
    files: { '/a.md': null, '/c.md': 'c', '/never.md': null },
  });
  t.match(put, { kind: 'ok', draft: { revision: 2 } });
  t.same(textsOf(await findDraft(pool, workflow)), { '/b.md': 'b', '/c.md': 'c' });
  t.equal(
    (await putDraft(pool, { ...workflow, userId: 'bob', baseRevision: 2, files: {} })).kind,
    'not_found',
  );
});

t.test('only paths that were written after the base revision conflict, deletions too', async (t) => {
  const workflow = await seedWorkflow(pool);
  await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/a.md': null, '/b.md': 'b2' } });
  t.same(
    await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/b.md': 'x', '/a.md': 'x', '/n': 'n' } }),
    {
      kind: 'conflict',
      conflicts: ['/a.md', '/b.md'],
    },
  );
  t.match(await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/n': 'n' } }), {
    kind: 'ok',
    draft: { revision: 3 },
  });
});

t.test('after the draft was deleted the revision goes on and base 0 conflicts with nothing', async (t) => {
  const workflow = await seedWorkflow(pool);
  t.equal(await deleteDraft(pool, { ...workflow, userId: 'bob' }), 'not_found');
  t.equal(await deleteDraft(pool, workflow), 'ok');
  t.equal(await deleteDraft(pool, workflow), 'no_draft');
  t.equal(await findDraft(pool, workflow), null);
  t.equal((await findWorkflow(pool, workflow))?.draftRevision, 2);
  t.match(
    await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/a.md': 'x' } }),
    { kind: 'conflict', conflicts: ['/a.md'] },
    'whoever still stands on the old draft is told',
  );
  t.match(await putDraft(pool, { ...workflow, baseRevision: 0, files: { '/a.md': 'x' } }), {
    kind: 'ok',
    draft: { revision: 3 },
  });
  t.same(textsOf(await findDraft(pool, workflow)), { '/a.md': 'x' }, 'nothing else came back');
});

t.test('deleting a draft supersedes its completed proposals, with audit and clean-up', async (t) => {
  const workflow = await seedWorkflow(pool);
  const completed = await seedCompleted(pool, workflow, { '/a.md': 'new' });
  const running = await seedProposal(pool, workflow);
  t.equal(await deleteDraft(pool, workflow), 'ok');
  t.match(await readThread(pool, completed), { status: 'resolved', resolution: 'superseded' });
  t.match((await listTransitions(pool, completed)).at(-1), {
    from: 'completed',
    to: 'resolved',
    event: 'supersede',
    actorUserId: 'ada',
    details: { reason: 'draft_deleted' },
  });
  t.match(await readThread(pool, running), { status: 'processing', cancelRequestedAt: null });
  const due = await claimDue(pool, { limit: 100, node: 'n' });
  t.ok(due.some((item) => item.jobId === completed.threadId));
});

t.test(
  'deleting a workflow cancels its runs, supersedes its results and makes all of it unseen',
  async (t) => {
    const workflow = await seedWorkflow(pool);
    const completed = await seedCompleted(pool, workflow, { '/a.md': 'new' });
    const running = await seedProposal(pool, workflow);
    t.equal(await deleteWorkflow(pool, { ...workflow, userId: 'bob' }), false);
    t.equal(await deleteWorkflow(pool, workflow), true);
    t.equal(await deleteWorkflow(pool, workflow), false);
    t.match(await readThread(pool, completed), { status: 'resolved', resolution: 'superseded' });
    t.match(await readThread(pool, running), { status: 'processing', cancelRequestedAt: String, version: 2 });
    t.match((await listTransitions(pool, running)).at(-1), { event: 'cancel', actorUserId: 'ada' });
    t.equal(await findWorkflow(pool, workflow), null);
    t.equal(await findDraft(pool, workflow), null);
    t.equal(await findProposalFor(pool, { ...workflow, proposalId: completed.proposalId }), null);
    t.equal(await findThreadFor(pool, { ...workflow, threadId: running.threadId }), null);
    t.equal((await putDraft(pool, { ...workflow, baseRevision: 0, files: {} })).kind, 'not_found');
    t.equal(await publishVersion(pool, workflow), 'not_found');
  },
);

t.test('versions are numbered, keep their files and never change', async (t) => {
  const workflow = await seedWorkflow(pool);
  t.match(await publishVersion(pool, workflow), {
    versionNumber: 1,
    createdByUserId: 'ada',
    files: { '/a.md': { content: 'a', revision: 1 } },
  });
  await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/a.md': 'a2', '/b.md': null } });
  t.match(await publishVersion(pool, workflow), { versionNumber: 2 });
  t.same(textsOf(draftLike(await findVersion(pool, { ...workflow, versionNumber: 1 }))), {
    '/a.md': 'a',
    '/b.md': 'b',
  });
  t.same(textsOf(draftLike(await findVersion(pool, { ...workflow, versionNumber: 2 }))), { '/a.md': 'a2' });
  t.equal(await findVersion(pool, { ...workflow, versionNumber: 3 }), null);
  const list = await listVersions(pool, { ...workflow, limit: 10, beforeVersion: null });
  t.same(
    list.map((version) => [version.versionNumber, 'files' in version]),
    [
      [2, false],
      [1, false],
    ],
  );
  t.equal((await listVersions(pool, { ...workflow, limit: 10, beforeVersion: 2 })).length, 1);
  for (const statement of [
    named('edit', noRow)`UPDATE version_files SET content = 'x' WHERE workflow_id = ${workflow.workflowId}`,
    named('drop', noRow)`DELETE FROM versions WHERE workflow_id = ${workflow.workflowId}`,
    named('forge', noRow)`UPDATE proposal_transitions SET event = 'x'`,
  ]) {
    await t.rejects(pool.query(statement), /violates|never changes/, statement.sql);
  }
  await deleteDraft(pool, workflow);
  t.equal(await publishVersion(pool, workflow), 'no_draft');
});

const draftLike = (version: Awaited<ReturnType<typeof findVersion>>) =>
  version?.files ? { files: version.files } : null;

t.test('a version is deployed by its number', async (t) => {
  const workflow = await seedWorkflow(pool);
  await publishVersion(pool, workflow);
  t.match(await deployVersion(pool, { ...workflow, versionNumber: 1 }), { productionVersion: 1 });
  t.equal(await deployVersion(pool, { ...workflow, versionNumber: 2 }), 'no_version');
  t.equal(await deployVersion(pool, { ...workflow, userId: 'bob', versionNumber: 1 }), 'not_found');
});

t.test('a draft of no files can be published, and a version of no files read', async (t) => {
  const workflow = await seedWorkflow(pool, { files: {} });
  t.match(await findDraft(pool, workflow), { revision: 1, files: {} });
  t.match(await publishVersion(pool, workflow), { versionNumber: 1, files: {} });
});
