import { randomUUID } from 'node:crypto';
import type { QuerySqlToken } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { named } from '../../src/db/pool.js';
import { noRow } from '../../src/db/statement.js';
import { createTestDatabase } from '../support/database.js';

const { pool } = await createTestDatabase(t, { maximumPoolSize: 1 });

// 10,000 proposals of 200 workflows of 50 users; one in 200 is running, one in 100 undecided.
await pool.query(
  named('fill_users', noRow)`INSERT INTO users SELECT 'user-' || n FROM generate_series(1, 50) n`,
);
await pool.query(named('fill_workflows', noRow)`
  INSERT INTO workflows (id, user_id, name, draft_revision, created_at)
  SELECT gen_random_uuid(), 'user-' || (n % 50 + 1), 'w', 1, now() - n * interval '1 minute'
  FROM generate_series(1, 200) n`);
await pool.query(named('fill_drafts', noRow)`INSERT INTO drafts (workflow_id) SELECT id FROM workflows`);
await pool.query(named('fill_files', noRow)`
  INSERT INTO draft_files (draft_id, path, content, sha256, revision)
  SELECT d.id, '/f' || n, 'text', repeat('0', 64), 1 FROM drafts d, generate_series(1, 20) n`);
await pool.query(named('fill_proposals', noRow)`
  INSERT INTO proposals (
    id, workflow_id, draft_id, created_by_user_id, thread_id, status, phase, resolution, user_prompt, base_revision,
    base_hashes, input, generated_files, owner_node, deadline_at, created_at, completed_at)
  SELECT gen_random_uuid(), w.id, d.id, w.user_id, gen_random_uuid(),
         CASE WHEN n % 200 = 0 THEN 'processing' WHEN n % 100 = 1 THEN 'completed' ELSE 'resolved' END,
         CASE WHEN n % 200 = 0 THEN 'streaming' END,
         CASE WHEN n % 200 <> 0 AND n % 100 <> 1 THEN 'approved' END,
         'prompt', 1, '{}', decode(repeat('ab', 300), 'hex'), '{"/f1":{"content":["x"]}}',
         CASE WHEN n % 200 = 0 THEN 'node-' || (n % 3) END, now(), now() - n * interval '1 second',
         now() - n * interval '1 second'
  FROM generate_series(1, 10000) n
  JOIN LATERAL (SELECT * FROM (SELECT *, row_number() OVER (ORDER BY id) r FROM workflows) x WHERE r = n % 200 + 1) w
    ON true
  JOIN drafts d ON d.workflow_id = w.id`);
await pool.query(named('fill_attempts', noRow)`
  INSERT INTO attempts (proposal_id, attempt, job_id) SELECT id, 1, thread_id FROM proposals`);
await pool.query(named('fill_access', noRow)`
  INSERT INTO proposal_access (proposal_id, user_id, role) SELECT id, created_by_user_id, 'owner' FROM proposals`);
await pool.query(named('fill_transitions', noRow)`
  INSERT INTO proposal_transitions (id, proposal_id, row_version, to_state, event, attempt)
  SELECT gen_random_uuid(), id, n, 'streaming', 'x', 1 FROM proposals, generate_series(1, 3) n`);
await pool.query(named('fill_outbox', noRow)`
  INSERT INTO outbox (job_id, due_at) SELECT gen_random_uuid(), now() + n * interval '1 minute'
  FROM generate_series(-20, 5000) n`);
await pool.query(named('fill_tickets', noRow)`
  INSERT INTO tickets SELECT 'hash-' || n, 'user-1', gen_random_uuid(), now() FROM generate_series(1, 5000) n`);
await pool.query(named('fill_keys', noRow)`
  INSERT INTO idempotency_keys (user_id, route, key, body_hash, holder, proposal_id)
  SELECT created_by_user_id, 'r', id::text, 'h', id, id FROM proposals LIMIT 5000`);
await pool.query(named('fill_transcripts', noRow)`
  INSERT INTO transcripts (proposal_id, attempt, epoch, first_seq, last_seq, bytes, frames)
  SELECT id, 1, '1.1', 1, 9, 9, '' FROM proposals WHERE status = 'resolved'`);
await pool.query(named('let_lack', noRow)`
  UPDATE proposals SET transcript_due_at = now() WHERE id IN (
    SELECT id FROM proposals WHERE status = 'resolved' LIMIT 20)`);
await pool.query(named('analyze', noRow)`ANALYZE`);

const some = await pool.one(named(
  'some',
  z.object({ id: z.string(), threadId: z.string(), workflowId: z.string(), userId: z.string() }),
)`
  SELECT id, thread_id AS "threadId", workflow_id AS "workflowId", created_by_user_id AS "userId"
  FROM proposals WHERE status = 'processing' LIMIT 1`);

interface Plan {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Name'?: string;
  Plans?: Plan[];
}
const seqScans = (plan: Plan): string[] => [
  ...(plan['Node Type'] === 'Seq Scan' ? [plan['Relation Name'] ?? '?'] : []),
  ...(plan.Plans ?? []).flatMap(seqScans),
];

/** Runs a function of the database layer on a stand-in that explains its first statement instead of running it. */
const statementsOf = async (work: (db: never) => Promise<unknown>): Promise<QuerySqlToken[]> => {
  const seen: QuerySqlToken[] = [];
  const capture = async (statement: QuerySqlToken) => {
    seen.push(statement);
    throw new Error('captured');
  };
  const methods = ['any', 'anyFirst', 'maybeOne', 'maybeOneFirst', 'one', 'oneFirst', 'query', 'exists'];
  await work(Object.fromEntries(methods.map((name) => [name, capture])) as never).catch(() => undefined);
  return seen;
};

const { findProposalFor, findThreadFor, listProposals, readInput, readLastFrames } = await import(
  '../../src/db/proposals.js'
);
const {
  clearTakenOver,
  countUnfinished,
  giveUpOwned,
  listOverdue,
  listReviveable,
  readThread,
  rereadThreads,
  takeOver,
  unfinishedOwnedBy,
} = await import('../../src/db/threads.js');
const { commitCompleted, commitFailed, commitPhase, commitRefusedStart, commitRetry, findTransition } =
  await import('../../src/db/run-progress.js');
const { findDraft } = await import('../../src/db/drafts.js');
const { expireUndecided, requestCancel } = await import('../../src/db/decisions.js');
const { resolveProposals } = await import('../../src/db/resolve.js');
const { findWorkflow, listWorkflows, lockWorkflow } = await import('../../src/db/workflows.js');
const { claimDue, confirm, confirmJob } = await import('../../src/db/outbox.js');
const { purgeTickets, redeemTicket } = await import('../../src/db/tickets.js');
const { answerProposalKey, beginKey, finishKey } = await import('../../src/db/idempotency.js');
const { addTranscriptPart, claimTranscript, finishTranscript, listTranscriptParts, readTranscriptPart } =
  await import('../../src/db/transcripts.js');
const { listTransitions } = await import('../../src/db/audit.js');

const fence = { proposalId: some.id, generation: 1, version: 1, transitionId: randomUUID() };
const move = { from: 'streaming', event: 'x', attempt: 1 };
const failure = {
  ...move,
  error: { code: 'c', message: 'm' },
  warnings: [],
  lastFrames: null,
  finalEpoch: null,
};
const lastFrames = { epoch: '1.1', frames: [] };
const part = { firstSeq: 1, lastSeq: 2, bytes: 1, packed: Buffer.from('x') };
const cursor = { createdAt: new Date().toISOString(), id: some.id };
const key = { userId: 'user-1', route: 'r', key: 'k', bodyHash: 'h', id: some.id };

const hot: Record<string, (db: never) => Promise<unknown>> = {
  findProposalFor: (db) => findProposalFor(db, { proposalId: some.id, userId: some.userId }),
  findThreadFor: (db) => findThreadFor(db, { threadId: some.threadId, userId: some.userId }),
  listProposals: (db) => listProposals(db, { workflowId: some.workflowId, limit: 20, cursor }),
  readInput: (db) => readInput(db, { proposalId: some.id }),
  readLastFrames: (db) => readLastFrames(db, { proposalId: some.id }),
  readThread: (db) => readThread(db, { threadId: some.threadId }),
  rereadThreads: (db) => rereadThreads(db, [some.threadId, randomUUID()]),
  unfinishedOwnedBy: (db) => unfinishedOwnedBy(db, { node: 'node-1' }),
  takeOver: (db) =>
    takeOver(db, { ...some, fromNode: 'node-1', fromGeneration: 1, toNode: 'x', transitionId: randomUUID() }),
  clearTakenOver: (db) => clearTakenOver(db, fence),
  giveUpOwned: (db) => giveUpOwned(db, { node: 'node-1', except: [], limit: 200 }),
  commitPhase: (db) => commitPhase(db, fence, { ...move, to: 'finalizing', runtimeThreadId: 'r' }),
  commitRetry: (db) =>
    commitRetry(db, fence, { ...move, nextAttempt: 2, nextJobId: randomUUID(), outcome: 'stalled' }),
  commitCompleted: (db) =>
    commitCompleted(db, fence, { ...move, generatedFiles: {}, warnings: [], lastFrames, finalEpoch: '1.1' }),
  commitFailed: (db) => commitFailed(db, fence, failure),
  commitRefusedStart: (db) => commitRefusedStart(db, { ...fence, error: failure.error }),
  findTransition: (db) => findTransition(db, fence),
  resolveProposals: (db) =>
    resolveProposals(db, { ids: [some.id], resolution: 'approved', userId: 'user-1', details: null }),
  findDraft: (db) => findDraft(db, some),
  expireUndecided: (db) => expireUndecided(db, { olderThanMs: 9_000_000, limit: 10 }),
  requestCancel: (db) => requestCancel(db, { proposalId: some.id, userId: some.userId }),
  findWorkflow: (db) => findWorkflow(db, some),
  listWorkflows: (db) => listWorkflows(db, { userId: 'user-1', limit: 2, cursor }),
  lockWorkflow: (db) => lockWorkflow(db, some.workflowId),
  claimDue: (db) => claimDue(db, { limit: 5, node: 'n' }),
  confirm: (db) => confirm(db, { id: 1 }),
  confirmJob: (db) => confirmJob(db, { jobId: some.threadId }),
  redeemTicket: (db) => redeemTicket(db, { hash: 'hash-1' }),
  answerProposalKey: (db) => answerProposalKey(db, { proposalId: some.id }),
  beginKey: (db) => beginKey(db, key),
  finishKey: (db) => finishKey(db, { ...key, status: 200, body: {} }),
  addTranscriptPart: (db) => addTranscriptPart(db, { ...fence, part, keepFrom: 1 }),
  finishTranscript: (db) => finishTranscript(db, fence),
  claimTranscript: (db) => claimTranscript(db),
  listTranscriptParts: (db) => listTranscriptParts(db, { proposalId: some.id, epoch: '1.1' }),
  readTranscriptPart: (db) => readTranscriptPart(db, { proposalId: some.id, epoch: '1.1', after: 5 }),
  listTransitions: (db) => listTransitions(db, { proposalId: some.id }),
};

const planOf = async (statement: QuerySqlToken): Promise<Plan> => {
  const explained = { ...statement, sql: `EXPLAIN (FORMAT JSON) ${statement.sql}`, parser: z.any() };
  const row = (await pool.one(explained)) as { 'QUERY PLAN': [{ Plan: Plan }] };
  return row['QUERY PLAN'][0].Plan;
};

t.test('a statement without an index is noticed', async (t) => {
  const plan = await planOf(named('unindexed', noRow)`SELECT 1 FROM proposals WHERE user_prompt = ${'x'}`);
  t.same(seqScans(plan), ['proposals']);
});

t.test('no hot statement reads a big table from end to end', async (t) => {
  for (const [name, work] of Object.entries(hot)) {
    const [statement] = await statementsOf(work);
    if (!statement) {
      t.fail(`${name} ran no statement`);
      continue;
    }
    // nodes has a row per replica, and workflows and drafts few enough here for either plan to be right.
    const scans = seqScans(await planOf(statement)).filter(
      (table) => !['nodes', 'workflows', 'drafts'].includes(table),
    );
    t.same(scans, [], name);
  }
});

t.test('the sweeps go by their indexes where PostgreSQL may not scan', async (t) => {
  // Most of these tables matches, so a scan is the better plan here: what is asked is that the index can serve.
  await pool.query(named('no_scan', noRow)`SET enable_seqscan = off`);
  const sweeps: Record<string, (db: never) => Promise<unknown>> = {
    purgeTickets: (db) => purgeTickets(db),
    countUnfinished: (db) => countUnfinished(db, { node: 'x' }),
    listOverdue: (db) => listOverdue(db, { node: 'x', graceMs: 60_000, limit: 200 }),
    listReviveable: (db) => listReviveable(db, { node: 'x', all: false, limit: 200 }),
    listWorkflows: hot.listWorkflows as (db: never) => Promise<unknown>,
    findDraft: hot.findDraft as (db: never) => Promise<unknown>,
    lockWorkflow: hot.lockWorkflow as (db: never) => Promise<unknown>,
  };
  for (const [name, work] of Object.entries(sweeps)) {
    const [statement] = await statementsOf(work);
    if (statement) t.same(seqScans(await planOf(statement)), [], name);
    else t.fail(`${name} ran no statement`);
  }
});
