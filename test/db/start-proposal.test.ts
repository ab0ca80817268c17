import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { listTransitions } from '../../src/db/audit.js';
import { deleteDraft, findDraft, putDraft } from '../../src/db/drafts.js';
import { answerProposalKey, beginKey, dropKey, finishKey, purgeKeys } from '../../src/db/idempotency.js';
import { createPool, named } from '../../src/db/pool.js';
import {
  findProposalFor,
  findThreadFor,
  keepStart,
  listProposals,
  proposalCounts,
  readInput,
  readThread,
  startProposal,
  wasStarted,
} from '../../src/db/proposals.js';
import { commitRefusedStart } from '../../src/db/run-progress.js';
import { noRow } from '../../src/db/statement.js';
import { publishVersion } from '../../src/db/versions.js';
import { createTestDatabase } from '../support/database.js';
import { seedCompleted, seedProposal, seedWorkflow, textsOf } from '../support/seed.js';

const { pool, url } = await createTestDatabase(t);

const inputFor = (workflow: { workflowId: string; userId: string }, key: string | null, bodyHash = 'h') => ({
  ...workflow,
  proposalId: randomUUID(),
  threadId: randomUUID(),
  transitionId: randomUUID(),
  userPrompt: 'Add web search',
  contextFilePath: '/a.md',
  contextSelection: 'sel',
  buildInput: (files: Record<string, string>) => ({ job: 'x', files, text: 'é\u0000𝒳' }),
  ownerNode: 'node-1',
  totalDeadlineMs: 60_000,
  idempotency: key === null ? null : { key, route: 'refinements', bodyHash },
  retryOf: null,
});

t.test('one statement writes everything that a revival needs', async (t) => {
  const workflow = await seedWorkflow(pool);
  const input = inputFor(workflow, null);
  const started = await startProposal(pool, input);
  t.match(started, {
    kind: 'ok',
    row: {
      proposalId: input.proposalId,
      threadId: input.threadId,
      jobId: input.threadId,
      status: 'processing',
      phase: 'invoking',
      attempt: 1,
      version: 1,
      ownerNode: 'node-1',
      ownerGeneration: 1,
      accessVersion: 1,
      cancelRequestedAt: null,
    },
  });
  t.ok(await wasStarted(pool, input));
  t.same(
    await readInput(pool, input),
    { job: 'x', files: { '/a.md': 'a', '/b.md': 'b' }, text: 'é\u0000𝒳' },
    'the input comes back as it was built',
  );
  t.match(await findProposalFor(pool, input), {
    access: 'owner',
    row: {
      baseRevision: 1,
      baseHashes: { '/a.md': /^[0-9a-f]{64}$/, '/b.md': String },
      contextFilePath: '/a.md',
      contextSelection: 'sel',
      generatedFiles: null,
      warnings: [],
    },
  });
  t.match(await findThreadFor(pool, input), {
    proposalId: input.proposalId,
    access: 'owner',
    accessVersion: 1,
  });
  t.match(await listTransitions(pool, input), [
    { from: null, to: 'invoking', event: 'start', actorUserId: 'ada' },
  ]);
  t.equal(await findProposalFor(pool, { ...input, userId: 'bob' }), null);
  t.equal(await findThreadFor(pool, { ...input, userId: 'bob' }), null);
  t.equal(await readInput(pool, { proposalId: randomUUID() }), null);
});

t.test('another user, or an unknown workflow, gets not_found and nothing is written', async (t) => {
  const workflow = await seedWorkflow(pool);
  const input = inputFor({ ...workflow, userId: 'bob' }, 'k-none');
  t.same(await startProposal(pool, input), { kind: 'not_found' });
  t.notOk(await wasStarted(pool, input));
  t.match(await startProposal(pool, inputFor(workflow, 'k-none')), { kind: 'ok' }, 'the key is not taken');
});

t.test('a draft is made from the newest version where there is none, else empty', async (t) => {
  const bare = await seedWorkflow(pool, { files: null });
  await seedProposal(pool, bare);
  t.match(await findDraft(pool, bare), { revision: 0, files: {} });

  const workflow = await seedWorkflow(pool);
  await publishVersion(pool, workflow);
  await putDraft(pool, { ...workflow, baseRevision: 1, files: { '/c.md': 'c' } });
  await deleteDraft(pool, workflow);
  const row = await seedProposal(pool, workflow);
  const draft = await findDraft(pool, workflow);
  t.same(textsOf(draft), { '/a.md': 'a', '/b.md': 'b' });
  t.equal(draft?.revision, 4, 'and the revision goes on');
  t.match(await findProposalFor(pool, { ...workflow, proposalId: row.proposalId }), {
    row: { baseRevision: 4 },
  });
});

t.test('a start on a draft that is there reads once and writes once (rules 1, 8)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const statements: string[] = [];
  const told = await createPool({
    url,
    maximumPoolSize: 1,
    applicationName: 'told',
    onQuery: (name) => statements.push(name),
  });
  t.match(await startProposal(told, inputFor(workflow, 'two-statements')), { kind: 'ok' });
  await told.end();
  t.same(statements, ['probe', 'find_draft', 'start_proposal']);
});

/** Changes the workflow under its lock while a start waits there, with the draft of before in its hands. */
async function startWhile(workflow: { workflowId: string; userId: string }, ...changes: string[]) {
  const input = inputFor(workflow, randomUUID());
  const other = new pg.Client({ connectionString: url });
  await other.connect();
  await other.query('BEGIN');
  await other.query('SELECT 1 FROM workflows WHERE id = $1 FOR NO KEY UPDATE', [workflow.workflowId]);
  const starting = startProposal(pool, input);
  const waiting = named('waiting', noRow)`
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%start_proposal%'`;
  while (!(await pool.exists(waiting))) await sleep(10);
  for (const change of changes) await other.query(change, [workflow.workflowId]);
  await other.query('COMMIT');
  await other.end();
  return { input, started: await starting };
}

t.test('a draft that changes before the start is written is what the run starts from (rule 8)', async (t) => {
  const { input, started } = await startWhile(
    await seedWorkflow(pool),
    'UPDATE workflows SET draft_revision = 2 WHERE id = $1',
    `UPDATE draft_files SET content = 'new', revision = 2
     WHERE path = '/b.md' AND draft_id = (SELECT id FROM drafts WHERE workflow_id = $1)`,
  );
  t.match(started, { kind: 'ok' });
  t.match(await readInput(pool, input), { files: { '/a.md': 'a', '/b.md': 'new' } });
  t.match(await findProposalFor(pool, input), { row: { baseRevision: 2 } });
});

t.test('a workflow that is deleted before the start is written starts nothing', async (t) => {
  const { input, started } = await startWhile(
    await seedWorkflow(pool),
    'UPDATE workflows SET deleted_at = now() WHERE id = $1',
  );
  t.same(started, { kind: 'not_found' });
  t.notOk(await wasStarted(pool, input));
});

t.test('a key starts one proposal, however many ask at once', async (t) => {
  const workflow = await seedWorkflow(pool);
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => startProposal(pool, inputFor(workflow, 'same'))),
  );
  const kinds = answers.map((answer) => answer.kind).sort();
  t.same(kinds, [...Array(7).fill('in_flight'), 'ok']);
  t.equal((await listProposals(pool, { ...workflow, limit: 10, cursor: null })).length, 1);
});

t.test(
  'a repeat is in flight, then answered from the row; another body is a mismatch (rule 8)',
  async (t) => {
    const workflow = await seedWorkflow(pool);
    const first = inputFor(workflow, 'key-1');
    t.match(await startProposal(pool, first), { kind: 'ok' });
    t.same(await startProposal(pool, inputFor(workflow, 'key-1')), { kind: 'in_flight' });
    t.same(await startProposal(pool, inputFor(workflow, 'key-1', 'other')), { kind: 'mismatch' });
    await answerProposalKey(pool, first);
    t.match(await startProposal(pool, inputFor(workflow, 'key-1')), {
      kind: 'replay',
      row: { proposalId: first.proposalId, threadId: first.threadId },
    });
  },
);

t.test(
  '10 s after the key was written a repeat is answered, whatever became of the first (rule 8)',
  async (t) => {
    const workflow = await seedWorkflow(pool);
    const first = inputFor(workflow, 'key-2');
    await startProposal(pool, first);
    await pool.query(named('age', noRow)`
    UPDATE idempotency_keys SET created_at = now() - interval '11 seconds' WHERE key = 'key-2'`);
    t.match(await startProposal(pool, inputFor(workflow, 'key-2')), {
      kind: 'replay',
      row: { proposalId: first.proposalId },
    });
  },
);

t.test('a refused start fails the row and frees the key in one statement (rule 8)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const first = inputFor(workflow, 'key-3');
  await startProposal(pool, first);
  const error = { code: 'runtime_unavailable', message: 'Try again soon.', retryable: true };
  const refused = { proposalId: first.proposalId, transitionId: randomUUID(), error };
  t.same(await commitRefusedStart(pool, { ...refused, version: 7 }), null, 'fenced like any other');
  t.same(await startProposal(pool, inputFor(workflow, 'key-3')), { kind: 'in_flight' });
  t.same(await commitRefusedStart(pool, refused), { version: 2 });
  t.match(await readThread(pool, first), { status: 'failed', error, ownerNode: null });
  t.match(await startProposal(pool, inputFor(workflow, 'key-3')), { kind: 'ok' }, 'a repeat starts anew');
});

t.test('of a refusal and a promise of one start at once one is made, with its key (rule 8)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const error = { code: 'runtime_unavailable', message: 'Try again soon.', retryable: true };
  for (let round = 0; round < 40; round++) {
    const key = `race-${round}`;
    const first = inputFor(workflow, key);
    await startProposal(pool, first);
    const refuse = () => commitRefusedStart(pool, { ...first, transitionId: randomUUID(), error });
    const keep = () => keepStart(pool, { ...first, transitionId: randomUUID() });
    // Each begins half of the rounds.
    const both = round % 2 === 0 ? ([refuse(), keep()] as const) : ([keep(), refuse()] as const);
    const made = await Promise.all(both);
    const [refused, kept] = round % 2 === 0 ? made : [made[1], made[0]];
    t.not(refused !== null, kept, 'one of the two');
    t.match(await readThread(pool, first), { status: kept ? 'processing' : 'failed', version: 2 });
    const repeat = await startProposal(pool, inputFor(workflow, key));
    t.equal(repeat.kind, kept ? 'replay' : 'ok');
  }
});

t.test('any other key gives its stored answer again', async (t) => {
  const key = { userId: 'ada', route: 'POST /api/workflows', key: 'k', bodyHash: 'h' };
  const id = randomUUID();
  t.equal(await beginKey(pool, { ...key, id }), 'new');
  t.equal(await beginKey(pool, { ...key, id: randomUUID() }), 'in_flight');
  t.equal(await beginKey(pool, { ...key, bodyHash: 'other', id: randomUUID() }), 'mismatch');
  t.equal(await beginKey(pool, { ...key, userId: 'bob', id: randomUUID() }), 'new', 'per user');
  await finishKey(pool, { ...key, id: randomUUID(), status: 500, body: null });
  t.equal(await beginKey(pool, { ...key, id: randomUUID() }), 'in_flight', 'only its holder answers');
  await finishKey(pool, { ...key, id, status: 201, body: { id: 'w' } });
  t.same(await beginKey(pool, { ...key, id: randomUUID() }), { replay: { status: 201, body: { id: 'w' } } });
  const dropped = { ...key, key: 'dropped', id: randomUUID() };
  t.equal(await beginKey(pool, dropped), 'new');
  await dropKey(pool, dropped);
  t.equal(await beginKey(pool, dropped), 'new');
  const empty = { ...key, key: 'empty', id: randomUUID() };
  await beginKey(pool, empty);
  await finishKey(pool, { ...empty, status: 204, body: null });
  t.same(await beginKey(pool, empty), { replay: { status: 204, body: null } });
});

t.test('a key whose work died goes to the next try after a minute, and old keys are purged', async (t) => {
  const key = { userId: 'ada', route: 'r', key: 'dead', bodyHash: 'h' };
  const first = randomUUID();
  await beginKey(pool, { ...key, id: first });
  await pool.query(named('age', noRow)`
    UPDATE idempotency_keys SET created_at = now() - interval '61 seconds' WHERE key = 'dead'`);
  t.equal(await beginKey(pool, { ...key, bodyHash: 'other', id: randomUUID() }), 'mismatch');
  const second = randomUUID();
  t.equal(await beginKey(pool, { ...key, id: second }), 'new');
  t.equal(await beginKey(pool, { ...key, id: randomUUID() }), 'in_flight');
  await finishKey(pool, { ...key, id: first, status: 200, body: 'late' });
  t.equal(await beginKey(pool, { ...key, id: randomUUID() }), 'in_flight', 'the dead one answers no more');
  await pool.query(named('age', noRow)`
    UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'dead'`);
  t.equal(await purgeKeys(pool, { olderThanMs: 24 * 3_600_000 }), 1);
});

t.test('proposals are listed by pages and status, and counted', async (t) => {
  const workflow = await seedWorkflow(pool, { userId: 'lister' });
  const before = await proposalCounts(pool);
  for (let index = 0; index < 3; index++) await seedProposal(pool, workflow);
  await seedCompleted(pool, workflow, { '/a.md': 'x' });
  const page = await listProposals(pool, { ...workflow, limit: 3, cursor: null });
  const last = page.at(-1);
  const rest = await listProposals(pool, { ...workflow, limit: 3, cursor: last ?? null });
  t.equal(new Set([...page, ...rest].map((row) => row.id)).size, 4);
  t.match(await listProposals(pool, { ...workflow, status: 'completed', limit: 9, cursor: null }), [
    { status: 'completed', generatedFiles: { '/a.md': { content: ['x'] } } },
  ]);
  const after = await proposalCounts(pool);
  t.equal(after.processing - before.processing, 3);
  t.equal(after.completed - before.completed, 1);
});
