import t from 'tap';
import { approveProposal } from '../../src/db/decisions.js';
import { findDraft } from '../../src/db/drafts.js';
import { createPool, isUnknownOutcome, withDeadline } from '../../src/db/pool.js';
import { readThread } from '../../src/db/proposals.js';
import { commitPhase, findTransition } from '../../src/db/run-progress.js';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { fenceOf, seedCompleted, seedProposal, seedWorkflow } from '../support/seed.js';
import { eventually, until } from '../support/until.js';

const { pool, url } = await createTestDatabase(t);

const opened = { from: 'invoking', to: 'streaming', event: 'runtime.opened', attempt: 1 } as const;

for (const mode of ['swallow_and_cut', 'swallow'] as const) {
  t.test(`a commit whose answer is lost (${mode}) is unknown, and found by its transition`, async (t) => {
    const gate = await createDatabaseGate(url);
    const behind = await createPool({ url: gate.url, maximumPoolSize: 1, applicationName: 'behind' });
    t.teardown(async () => {
      gate.shut();
      // A statement that nobody answered is ended with its connection, and says so here.
      await behind.end().catch(() => undefined);
    });
    const row = await seedProposal(pool, await seedWorkflow(pool));
    await readThread(behind, row);
    const fence = fenceOf(row);
    gate.set(mode);
    let seen: unknown;
    await withDeadline(commitPhase(behind, fence, opened), 1_000).catch((error: unknown) => {
      seen = error;
    });
    t.ok(isUnknownOutcome(seen), String(seen));
    await until(async () => (await findTransition(pool, fence)) !== null);
    t.same(await findTransition(pool, fence), { version: 2 }, 'it did happen');
    gate.set('pass');
    if (mode === 'swallow_and_cut') {
      t.equal(await commitPhase(behind, fence, opened), null, 'repeated, it touches nothing');
    }
  });
}

t.test(
  'an approval whose commit was not answered is answered by the next one, and applied once',
  async (t) => {
    const gate = await createDatabaseGate(url);
    const behind = await createPool({ url: gate.url, maximumPoolSize: 1, applicationName: 'behind' });
    t.teardown(async () => {
      gate.shut();
      await behind.end();
    });
    const workflow = await seedWorkflow(pool);
    const row = await seedCompleted(pool, workflow, { '/a.md': 'a2' });
    const by = { proposalId: row.proposalId, userId: workflow.userId };
    gate.set('cut_at_commit');
    const seen = await approveProposal(behind, by).catch((error: unknown) => error);
    t.ok(isUnknownOutcome(seen), String(seen));
    gate.set('pass');
    t.same(await approveProposal(behind, by), {
      kind: 'ok',
      draftRevision: 2,
      filesApplied: 1,
      first: false,
    });
    t.equal((await findDraft(pool, workflow))?.revision, 2);
  },
);

t.test('a backend that is killed before its commit leaves no transition', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const fence = fenceOf(row);
  const { default: pg } = await import('pg');
  const blocker = new pg.Client({ connectionString: url });
  await blocker.connect();
  await blocker.query('BEGIN');
  await blocker.query('SELECT 1 FROM proposals WHERE id = $1 FOR UPDATE', [row.proposalId]);
  // Not the blocker: inside one transaction the activity of others stands still.
  const killer = new pg.Client({ connectionString: url });
  await killer.connect();
  const waiting = commitPhase(pool, fence, opened).catch((error: unknown) => error);
  await eventually('a commit that waits, and is killed', async () => {
    const { rowCount } = await killer.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%commit_phase%'`,
    );
    return rowCount === 1;
  });
  t.ok(isUnknownOutcome(await waiting));
  await blocker.query('ROLLBACK');
  await Promise.all([blocker.end(), killer.end()]);
  t.equal(await findTransition(pool, fence), null);
  t.ok(await commitPhase(pool, fence, opened), 'the pool goes on, and the commit may be made again');
});
