import { randomUUID } from 'node:crypto';
import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { resolveProposals } from '../../src/db/resolve.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitCompleted, commitFailed, commitRetry } from '../../src/db/run-progress.js';
import {
  addTranscriptPart,
  claimTranscript,
  finishTranscript,
  incompleteTranscripts,
  listTranscriptParts,
  packPart,
  readTranscriptPart,
  type TranscriptOfEnd,
} from '../../src/db/transcripts.js';
import { createTestDatabase } from '../support/database.js';
import { fenceOf, lastFrames, seedProposal, seedWorkflow, wireFile } from '../support/seed.js';

const { pool } = await createTestDatabase(t);
const workflow = await seedWorkflow(pool);

const frames = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => ({
    seq: from + index,
    bytes: Buffer.from(`{"seq":${from + index},"x":"é\\n"}`),
  }));
const partOf = async (from: number, to: number) => {
  const part = await packPart(frames(from, to));
  if (part === null) throw new Error('a part has frames');
  return part;
};
const numbersOf = async (proposalId: string, after: number, epoch = '1.1') =>
  (await readTranscriptPart(pool, { proposalId, epoch, after })).frames.map(({ seq }) => seq);

const move = { from: 'streaming', event: 'x', attempt: 1 };
const result = {
  ...move,
  generatedFiles: { '/a.md': wireFile('new') },
  warnings: [],
  lastFrames,
  finalEpoch: '1.1',
};
const failure = { ...move, error: { code: 'stalled', message: 'x' }, warnings: [], lastFrames };
const lacking: TranscriptOfEnd = { part: null, incomplete: true };

/** A completed proposal whose transcript lacks everything. */
const ended = async (transcript: TranscriptOfEnd = lacking): Promise<ThreadRow> => {
  const row = await seedProposal(pool, workflow);
  t.ok(await commitCompleted(pool, fenceOf(row), { ...result, transcript }));
  return row;
};
const writerOf = (row: ThreadRow) => ({ proposalId: row.proposalId, generation: row.ownerGeneration });

/** For how many seconds after the end, or the decision, each clean-up of the proposal is put off, by attempt; 0 = it is due. */
const waits = async ({ proposalId }: { proposalId: string }) => [
  ...(await pool.anyFirst(sql.type(z.object({ wait: z.number() }))`
    SELECT CASE WHEN o.due_at <= now() THEN 0
           ELSE round(extract(epoch FROM o.due_at - greatest(a.ended_at, p.resolved_at)))::integer END AS wait
    FROM outbox o JOIN attempts a USING (job_id) JOIN proposals p ON p.id = a.proposal_id
    WHERE a.proposal_id = ${proposalId} ORDER BY a.attempt`)),
];
const fallDue = ({ proposalId }: { proposalId: string }) =>
  pool.query(sql.type(z.object({}))`
    UPDATE proposals SET transcript_due_at = now() - interval '1 second' WHERE id = ${proposalId}`);

t.test(
  'the commit of an end stores a small transcript byte for byte, and one that touches no row none (rule 1)',
  async (t) => {
    const row = await seedProposal(pool, workflow);
    const transcript = { part: await partOf(1, 6), incomplete: false };
    const stale = { ...fenceOf(row), version: 9 };
    t.equal(await commitCompleted(pool, stale, { ...result, transcript }), null);
    t.equal(await commitFailed(pool, stale, { ...failure, finalEpoch: '1.1', transcript }), null);
    t.same(await numbersOf(row.proposalId, 0), []);
    t.ok(await commitCompleted(pool, fenceOf(row), { ...result, transcript }));
    const stored = await readTranscriptPart(pool, { proposalId: row.proposalId, epoch: '1.1', after: 0 });
    t.equal(stored.incomplete, false);
    t.same(
      stored.frames.map(({ seq, bytes }) => [seq, bytes.toString()]),
      frames(1, 6).map(({ seq, bytes }) => [seq, bytes.toString()]),
    );
    t.same(await numbersOf(row.proposalId, 6), [], 'nothing above it');
    t.same(await numbersOf(row.proposalId, 0, '1.2'), [], 'nor of another epoch');
    const other = await seedProposal(pool, workflow);
    t.ok(await commitFailed(pool, fenceOf(other), { ...failure, finalEpoch: '1.1', transcript }));
    t.same(await numbersOf(other.proposalId, 0), [1, 2, 3, 4, 5, 6]);
    t.equal(await claimTranscript(pool), null, 'nothing is left to do');
  },
);

t.test('parts are read from the one that holds the next number, in whatever order they came', async (t) => {
  const row = await ended();
  const add = async (from: number, to: number, keepFrom = 0) =>
    addTranscriptPart(pool, { ...writerOf(row), part: await partOf(from, to), keepFrom });
  t.ok(await add(7, 9));
  t.match(await readTranscriptPart(pool, { proposalId: row.proposalId, epoch: '1.1', after: 0 }), {
    incomplete: true,
    frames: [{ seq: 7 }, { seq: 8 }, { seq: 9 }],
  });
  t.ok(await add(1, 3));
  t.ok(await add(4, 6));
  t.ok(await add(1, 2), 'what is stored already');
  t.same(await numbersOf(row.proposalId, 0), [1, 2, 3], 'is not replaced by less');
  t.same(await numbersOf(row.proposalId, 3), [4, 5, 6]);
  t.same(await numbersOf(row.proposalId, 4), [4, 5, 6]);
  t.ok(await add(10, 12, 7));
  const bytes = (from: number, to: number) =>
    frames(from, to).reduce((sum, { bytes }) => sum + bytes.length, 0);
  t.same(await listTranscriptParts(pool, { proposalId: row.proposalId, epoch: '1.1' }), [
    { firstSeq: 7, lastSeq: 9, bytes: bytes(7, 9) },
    { firstSeq: 10, lastSeq: 12, bytes: bytes(10, 12) },
  ]);
  t.ok(await finishTranscript(pool, writerOf(row)));
  t.notOk(await add(13, 14), 'complete is complete');
  t.notOk(await finishTranscript(pool, writerOf(row)));
});

t.test(
  'an overdue transcript is taken over by one of two, and who had it before writes no more (rules 3, 18)',
  async (t) => {
    const rows = await Promise.all([ended(), ended(), ended()]);
    t.equal(await claimTranscript(pool), null, 'its owner has its time');
    t.equal(await incompleteTranscripts(pool), rows.length);
    for (const row of rows) await fallDue(row);
    const claims = await Promise.all(Array.from({ length: 6 }, () => claimTranscript(pool)));
    const got = claims.flatMap((claim) => (claim === null ? [] : [claim]));
    t.same(got.map(({ threadId }) => threadId).sort(), rows.map(({ threadId }) => threadId).sort());
    t.match(got[0], { generation: 2, attempt: 1, epoch: '1.1', tries: 1, cleaned: false });
    t.equal(got[0]?.runtimeThreadId, got[0]?.threadId, 'by the job where the runtime told no thread');
    const [row] = rows;
    const part = await partOf(1, 2);
    t.notOk(await addTranscriptPart(pool, { ...writerOf(row), part, keepFrom: 0 }));
    t.notOk(await finishTranscript(pool, writerOf(row)));
    const now = { proposalId: row.proposalId, generation: 2 };
    t.ok(await addTranscriptPart(pool, { ...now, part, keepFrom: 0 }));
    await fallDue(row);
    t.match(await claimTranscript(pool), { generation: 3, tries: 2 });
    t.equal(await claimTranscript(pool), null);
    t.ok(await finishTranscript(pool, { ...now, generation: 3 }));
  },
);

t.test(
  'the clean-up of the last attempt waits for its transcript, at most 60 s, those before it do not (rules 7, 18)',
  async (t) => {
    const row = await seedProposal(pool, workflow);
    const nextJobId = randomUUID();
    await commitRetry(pool, fenceOf(row), { ...move, nextAttempt: 2, nextJobId, outcome: 'stalled' });
    t.same(await waits(row), [0]);
    const fence = { ...fenceOf(row), version: row.version + 1 };
    t.ok(await commitFailed(pool, fence, { ...failure, attempt: 2, finalEpoch: '2.1', transcript: lacking }));
    t.same(await waits(row), [0, 60]);
    t.ok(await finishTranscript(pool, writerOf(row)));
    t.same(await waits(row), [0, 0], 'due when it is complete');
    const whole = await seedProposal(pool, workflow);
    await commitFailed(pool, fenceOf(whole), {
      ...failure,
      finalEpoch: '1.1',
      transcript: { part: await partOf(1, 2), incomplete: false },
    });
    t.same(await waits(whole), [0]);
  },
);

t.test(
  'a decision lets the transcript be completed before it cleans up, at most 60 s (rule 18)',
  async (t) => {
    const [early, late] = [await ended(), await ended()];
    const decide = (row: ThreadRow) =>
      resolveProposals(pool, { ids: [row.proposalId], resolution: 'rejected', userId: 'ada', details: null });
    await decide(early);
    t.same(await waits(early), [60]);
    t.ok(await addTranscriptPart(pool, { ...writerOf(early), part: await partOf(1, 2), keepFrom: 0 }));
    t.ok(await finishTranscript(pool, writerOf(early)), 'a decision does not take the work away');
    t.same(await waits(early), [0]);
    await finishTranscript(pool, writerOf(late));
    await decide(late);
    t.same(await waits(late), [0]);
  },
);
