import { randomUUID } from 'node:crypto';
import t from 'tap';
import { claimDue, confirm, confirmJob, defer, pendingCount } from '../../src/db/outbox.js';
import { named } from '../../src/db/pool.js';
import { readAttempts, readLastFrames } from '../../src/db/proposals.js';
import { purgeExpired } from '../../src/db/retention.js';
import { commitFailed } from '../../src/db/run-progress.js';
import { noRow } from '../../src/db/statement.js';
import { createTicket, purgeTickets, redeemTicket } from '../../src/db/tickets.js';
import { packPart, readTranscriptPart, type TranscriptOfEnd } from '../../src/db/transcripts.js';
import { createTestDatabase } from '../support/database.js';
import { fenceOf, lastFrames, seedProposal, seedWorkflow } from '../support/seed.js';

const { pool } = await createTestDatabase(t);

const failed = async (transcript?: TranscriptOfEnd) => {
  const row = await seedProposal(pool, await seedWorkflow(pool));
  await commitFailed(pool, fenceOf(row), {
    from: 'invoking',
    event: 'runtime.failed',
    attempt: 1,
    error: { code: 'stalled', message: 'x' },
    warnings: [],
    lastFrames,
    finalEpoch: '1.1',
    transcript,
  });
  return row;
};

t.test('a clean-up is claimed by one, deferred, and gone once confirmed', async (t) => {
  const rows = [await failed(), await failed(), await failed()];
  const claims = await Promise.all(['x', 'y', 'z'].map((node) => claimDue(pool, { limit: 2, node })));
  const claimed = claims.flat();
  t.same(claimed.map((item) => item.jobId).sort(), rows.map((row) => row.threadId).sort(), 'each once');
  t.same(await claimDue(pool, { limit: 9, node: 'x' }), [], 'within its lease nobody gets it again');
  const [first, second, third] = claimed;
  if (!first || !second || !third) throw new Error('three were claimed');
  await defer(pool, { id: first.id, seconds: 0 });
  t.match(await claimDue(pool, { limit: 9, node: 'y' }), [{ id: first.id, tries: 2 }]);
  await confirm(pool, { id: first.id });
  t.equal(await pendingCount(pool), 2);
  const cleaned = rows.find((row) => row.threadId === first.jobId);
  t.match(await readAttempts(pool, { proposalId: cleaned?.proposalId ?? '' }), [
    { outcome: 'stalled', cleanedAt: String },
  ]);
  await confirmJob(pool, { jobId: second.jobId });
  const other = rows.find((row) => row.threadId === second.jobId);
  t.match(await readAttempts(pool, { proposalId: other?.proposalId ?? '' }), [{ cleanedAt: String }]);
  await confirm(pool, { id: second.id });
  t.equal(await pendingCount(pool), 1);
  t.match(
    await claimDue(pool, { limit: 9, node: 'y', leaseSeconds: 0 }),
    [],
    'the third is still in its first lease',
  );
});

t.test('a dead claimer loses its lease', async (t) => {
  await failed();
  const first = await claimDue(pool, { limit: 9, node: 'dead', leaseSeconds: 0 });
  t.equal(first.length, 1);
  t.match(await claimDue(pool, { limit: 9, node: 'living' }), [{ tries: 2 }]);
});

t.test('of ten redemptions at once one gets the ticket (rule 19)', async (t) => {
  const ticket = { hash: randomUUID(), userId: 'ada', threadId: randomUUID() };
  await createTicket(pool, { ...ticket, expiresAt: new Date(Date.now() + 60_000).toISOString() });
  const answers = await Promise.all(Array.from({ length: 10 }, () => redeemTicket(pool, ticket)));
  t.same(answers.filter(Boolean), [{ userId: 'ada', threadId: ticket.threadId }]);
});

t.test('an expired ticket redeems nothing and is purged', async (t) => {
  const ticket = { hash: randomUUID(), userId: 'ada', threadId: randomUUID() };
  await createTicket(pool, { ...ticket, expiresAt: new Date(Date.now() - 1).toISOString() });
  t.equal(await redeemTicket(pool, ticket), null);
  t.equal(await purgeTickets(pool), 1);
});

t.test('what is kept for a while goes after it, and nothing before', async (t) => {
  const part = await packPart([{ seq: 1, bytes: Buffer.from('x') }]);
  const row = await failed({ part, incomplete: false });
  const of = { proposalId: row.proposalId, epoch: '1.1', after: 0 };
  const ages = { transcriptsMs: 7 * 24 * 3_600_000, keysMs: 24 * 3_600_000 };
  t.same(await purgeExpired(pool, ages), { transcripts: 0, keys: 0, tickets: 0 });
  t.equal((await readTranscriptPart(pool, of)).frames.length, 1);
  await pool.query(named('age', noRow)`
    UPDATE attempts SET ended_at = now() - interval '8 days' WHERE proposal_id = ${row.proposalId}`);
  t.same(await purgeExpired(pool, ages), { transcripts: 1, keys: 0, tickets: 0 });
  t.same(await readTranscriptPart(pool, of), { incomplete: false, frames: [] });
  t.equal((await readLastFrames(pool, row))?.frames.length, 2, 'the last frames stay');
});
