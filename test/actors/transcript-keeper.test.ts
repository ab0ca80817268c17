import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import { type CommonQueryMethods, sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { createTranscriptKeeper } from '../../src/actors/transcript-keeper.js';
import { commitFailed } from '../../src/db/run-progress.js';
import { listTranscriptParts, readTranscriptPart } from '../../src/db/transcripts.js';
import { createTestDatabase } from '../support/database.js';
import { createRuntimeLogFixture } from '../support/runtime-log-fixture.js';
import { fenceOf, seedProposal, seedWorkflow } from '../support/seed.js';

const { pool } = await createTestDatabase(t);
const workflow = await seedWorkflow(pool);
const nothing = { held: () => [] };

/** A failed run, its log at the runtime, and no frame of it stored. */
async function house(t: Test, tokens: number, characters = 4) {
  const fixture = await createRuntimeLogFixture((end) => t.teardown(end));
  const row = await seedProposal(pool, workflow);
  const thread = await fixture.run(row.threadId, tokens, characters);
  const texts: string[] = [];
  const reader = { on() {}, once() {}, close() {}, terminate() {}, send: (text: string) => texts.push(text) };
  thread.attach(reader as never, { after: 0, epoch: 1 });
  thread.fail('model_error', 'No.', false);
  await commitFailed(pool, fenceOf(row), {
    from: 'streaming',
    event: 'run.failed',
    attempt: 1,
    error: { code: 'model_error', message: 'No.' },
    warnings: [],
    lastFrames: { epoch: '1.1', frames: [{ seq: tokens + 2, bytes: Buffer.from('{}') }] },
    finalEpoch: '1.1',
    transcript: { part: null, incomplete: true },
  });
  let cleanUps = 0;
  let away = false;
  const keeper = (transcriptBytes = 1 << 30, db: CommonQueryMethods = pool) => {
    const made = createTranscriptKeeper({
      db,
      runtimeLog: fixture.runtimeLog,
      runtimeAway: () => away,
      transcriptBytes,
      log: { info: () => undefined, warn: () => undefined },
      onCleanUpDue: () => void cleanUps++,
    });
    t.teardown(() => made.stop());
    return made;
  };
  const of = { proposalId: row.proposalId, epoch: '1.1' };
  /** The run's frames, of which the window holds those from `from` on. */
  const transcript = (from: number) => ({
    ...of,
    runtimeThreadId: row.threadId,
    generation: row.ownerGeneration,
    upTo: tokens,
    held: (after: number, bytes: number) => {
      const held = [];
      for (let number = Math.max(from, after + 1), size = 0; number <= tokens && size < bytes; number++) {
        held.push({ number, bytes: Buffer.from(texts[number] ?? '') });
        size += held.at(-1)?.bytes.length ?? 0;
      }
      return held;
    },
  });
  const stored = async () => {
    const frames: [number, string][] = [];
    for (;;) {
      const part = await readTranscriptPart(pool, { ...of, after: frames.at(-1)?.[0] ?? 0 });
      if (part.frames.length === 0) return { frames, incomplete: part.incomplete };
      const last = frames.at(-1)?.[0] ?? 0;
      for (const { seq, bytes } of part.frames) if (seq > last) frames.push([seq, bytes.toString()]);
    }
  };
  /** `[number, text]` of what viewers got from `from` on. */
  const sent = (from: number) =>
    Array.from({ length: tokens - from + 1 }, (_, index) => [from + index, texts[from + index]]);
  const isCleanUpDue = () =>
    pool.oneFirst(sql.type(z.object({ due: z.boolean() }))`
      SELECT due_at <= now() AS due FROM outbox WHERE job_id = ${row.threadId}`);
  const fallDue = (tries = 0) =>
    pool.query(sql.type(z.object({}))`
      UPDATE proposals SET transcript_due_at = now() - interval '1 second', transcript_tries = ${tries}
      WHERE id = ${row.proposalId}`);
  return {
    ...fixture,
    row,
    of,
    thread,
    keeper,
    transcript,
    stored,
    sent,
    isCleanUpDue,
    fallDue,
    cleanUps: () => cleanUps,
    runtimeIsAway: (is: boolean) => {
      away = is;
    },
  };
}

t.test(
  'what a commit left out is stored from the window and the runtime’s log, and then the clean-up is due (rule 18)',
  async (t) => {
    const { keeper, transcript, stored, sent, isCleanUpDue, cleanUps, runtime } = await house(t, 60, 60_000);
    t.equal(await isCleanUpDue(), false);
    await keeper().complete(transcript(30));
    t.strictSame(await stored(), { frames: sent(1), incomplete: false });
    t.equal(runtime.requestsOf('stream').length, 1, 'only what the window had not was read');
    t.match(runtime.requestsOf('stream')[0]?.url, /after=0/);
    t.equal(await isCleanUpDue(), true);
    t.equal(cleanUps(), 1);
  },
);

t.test(
  'an owner that is gone before the transcript is complete is replaced by one of two replicas (rule 18)',
  async (t) => {
    const { keeper, of, stored, sent, fallDue, transcript, runtime, cleanUps } = await house(t, 30, 300_000);
    const [one, other] = [keeper(), keeper()];
    await Promise.all([one.sweep(), other.sweep()]);
    t.strictSame(await stored(), { frames: [], incomplete: true }, 'not before its time is over');
    await fallDue();
    await Promise.all([one.sweep(), other.sweep(), one.sweep()]);
    t.strictSame(await stored(), { frames: sent(1), incomplete: false });
    t.ok((await listTranscriptParts(pool, of)).length > 3, 'in parts');
    t.equal(runtime.requestsOf('stream').length, 3, 'in pieces, each once');
    t.equal(cleanUps(), 1);
    await one.complete({ ...transcript(1), upTo: 99 });
    t.equal(cleanUps(), 1, 'who comes back late finds it done');
  },
);

t.test('a runtime that is away is asked again later, and not for ever (rule 18)', async (t) => {
  const { keeper, stored, sent, fallDue, transcript, runtime, runtimeIsAway } = await house(t, 5);
  await runtime.goAway();
  const kept = keeper();
  await kept.complete(transcript(4));
  t.strictSame(await stored(), { frames: sent(4), incomplete: true }, 'what the window had is safe');
  await fallDue();
  runtimeIsAway(true);
  await kept.sweep();
  await fallDue();
  runtimeIsAway(false);
  await kept.sweep();
  t.equal((await stored()).incomplete, true, 'tried once more, and not given up');
  await runtime.comeBack();
  await kept.sweep();
  t.equal((await stored()).incomplete, true, 'the next try has its time');
  await fallDue();
  await kept.sweep();
  t.strictSame(await stored(), { frames: sent(1), incomplete: false });
  const lost = await house(t, 5);
  await lost.runtime.goAway();
  await lost.fallDue(6);
  await lost.keeper().sweep();
  t.strictSame(await lost.stored(), { frames: [], incomplete: false }, 'the last try gives up');
});

t.test('a log that is gone leaves a partial transcript that says where it begins (rule 18)', async (t) => {
  const begun = await house(t, 5);
  begun.thread.restart();
  await begun.keeper().complete(begun.transcript(3));
  t.strictSame(await begun.stored(), { frames: begun.sent(3), incomplete: false });
  t.match(await listTranscriptParts(pool, begun.of), [{ firstSeq: 3, lastSeq: 5 }]);
  const cleaned = await house(t, 5);
  await pool.query(sql.type(z.object({}))`
    UPDATE attempts SET cleaned_at = now() WHERE proposal_id = ${cleaned.row.proposalId}`);
  await cleaned.fallDue();
  await cleaned.keeper().sweep();
  t.strictSame(await cleaned.stored(), { frames: [], incomplete: false });
  t.equal(cleaned.runtime.requestsOf('stream').length, 0, 'what was cleaned up is not asked for');
});

/** A database whose user dies at its n-th statement: before it is sent, or before it is answered. */
function mortal(statements: number, answered: boolean): CommonQueryMethods {
  let left = statements;
  const methods = ['any', 'maybeOne', 'maybeOneFirst'] as const;
  const dying = methods.map((name) => [
    name,
    async (statement: never) => {
      const dies = left-- === 0;
      if (left < 0 && !(dies && answered)) throw new Error('dead');
      const answer: unknown = await pool[name](statement);
      if (dies) throw new Error('dead');
      return answer;
    },
  ]);
  return Object.fromEntries(dying) as CommonQueryMethods;
}

t.test(
  'whichever writers die, and whenever, the transcript holds in the end what viewers got (rules 3, 18)',
  async (t) => {
    const death = fc.record({ statements: fc.nat({ max: 14 }), answered: fc.boolean(), away: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 13 }),
        fc.array(death, { maxLength: 4 }),
        async (from, deaths) => {
          const { keeper, transcript, stored, sent, fallDue, isCleanUpDue, runtime } = await house(
            t,
            12,
            300_000,
          );
          for (const [index, { statements, answered, away }] of deaths.entries()) {
            if (away) runtime.script.upgrade = () => ({ status: 503 });
            else delete runtime.script.upgrade;
            const writer = keeper(1 << 30, mortal(statements, answered));
            if (index === 0) await writer.complete(transcript(from));
            else await writer.sweep();
            if ((await stored()).incomplete) await fallDue();
          }
          delete runtime.script.upgrade;
          if (deaths.length === 0) await keeper().complete(transcript(from));
          else await keeper().sweep();
          t.strictSame(await stored(), { frames: sent(1), incomplete: false });
          t.equal(await isCleanUpDue(), true);
        },
      ),
      { numRuns: 8 },
    );
  },
);

t.test('of a transcript over the limit the newest part is kept', async (t) => {
  const { keeper, fallDue, stored, sent } = await house(t, 40, 100_000);
  await fallDue();
  await keeper(2_500_000).sweep();
  const { frames, incomplete } = await stored();
  t.equal(incomplete, false);
  t.strictSame(frames, sent(frames[0]?.[0] ?? 0));
  t.ok(frames.length > 10 && frames.length <= 25, `${frames.length} frames`);
  const held = await house(t, 40, 100_000);
  await held.keeper(1_500_000).complete(held.transcript(11));
  t.ok((await held.stored()).frames.length <= 15);
  t.equal(held.runtime.requestsOf('stream').length, 0, 'nothing is read that would be dropped');
});

t.test('a stop lets what was begun be completed, and begins nothing', async (t) => {
  const { keeper, transcript, stored, sent } = await house(t, 12, 100_000);
  const stops = keeper();
  const completed = stops.complete(transcript(9));
  await stops.stop();
  t.strictSame(await stored(), { frames: sent(1), incomplete: false });
  await completed;
  const late = await house(t, 5);
  await late.fallDue();
  await stops.sweep();
  await stops.complete(late.transcript(1));
  t.strictSame(await late.stored(), { frames: [], incomplete: true });
});

t.test('a database that refuses is no failure of the run: the work is left to the next', async (t) => {
  const { keeper, transcript, stored, of } = await house(t, 5);
  await keeper().complete({ ...transcript(1), proposalId: 'no uuid' });
  await keeper().complete({ ...transcript(1), proposalId: randomUUID() });
  await keeper().complete({ ...transcript(1), generation: 9 });
  t.strictSame(await stored(), { frames: [], incomplete: true });
  t.strictSame(await listTranscriptParts(pool, of), []);
});

t.test('runs that end at once are worked on four at a time, and every one in its turn', async (t) => {
  const { transcript, row } = await house(t, 1);
  let reading = 0;
  let most = 0;
  let reads = 0;
  const kept = createTranscriptKeeper({
    db: pool,
    runtimeLog: {
      async read() {
        most = Math.max(most, ++reading);
        reads++;
        for (let tries = 0; most < 4 && tries < 4_000; tries++) await wait(5);
        await wait(5);
        reading--;
        return { frames: [], rest: 'away' };
      },
    },
    runtimeAway: () => false,
    transcriptBytes: 1 << 20,
    log: { info: () => undefined, warn: () => undefined },
    onCleanUpDue: () => undefined,
  });
  const lacking = { ...transcript(1), ...nothing, runtimeThreadId: row.threadId };
  await Promise.all(Array.from({ length: 10 }, () => kept.complete(lacking)));
  t.strictSame({ most, reads }, { most: 4, reads: 10 });
  await kept.stop();
});
