import { randomUUID } from 'node:crypto';
import { sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { createCleanUp } from '../../src/actors/clean-up.js';
import { createTestDatabase } from '../support/database.js';

const row = z.object({
  jobId: z.string(),
  tries: z.number(),
  waits: z.boolean(),
  claimedBy: z.string().nullable(),
});

async function house(t: Test, jobs = 1) {
  const { pool } = await createTestDatabase(t);
  const names = Array.from({ length: jobs }, () => randomUUID());
  for (const [index, job] of names.entries()) {
    // Every second one is known to the runtime by a name of its own.
    const thread = index % 2 === 1 ? `run-${index}` : null;
    await pool.query(
      sql.type(z.object({}))`INSERT INTO outbox (job_id, runtime_thread_id) VALUES (${job}, ${thread})`,
    );
  }
  const asked: string[] = [];
  const script = {
    answer: async (_name: string): Promise<'confirmed' | 'pending'> => 'confirmed',
    retryAfter: null as number | null,
  };
  const cleanUp = createCleanUp({
    db: pool,
    client: {
      cleanup: (name) => {
        asked.push(name);
        return script.answer(name);
      },
      outboxCircuit: { state: () => 'closed', retryAfterSeconds: () => script.retryAfter },
    },
    node: 'node-1',
    log: { info: () => undefined, warn: () => undefined },
    delaySeconds: (tries) => 60 * tries,
  });
  const left = async () => [
    ...(await pool.any(sql.type(row)`
      SELECT job_id AS "jobId", tries, due_at > now() AS waits, claimed_by AS "claimedBy" FROM outbox ORDER BY id`)),
  ];
  return { pool, names, asked, script, cleanUp, left };
}

t.test('what the runtime confirms is forgotten, in as many batches as it takes', async (t) => {
  const { names, asked, cleanUp, left } = await house(t, 45);
  await cleanUp.deliver();
  t.equal(asked.length, 45);
  t.ok(asked.includes('run-1'), 'by the runtime’s own name where it has told one');
  t.ok(asked.includes(names[0] ?? ''), 'by the job where it has not');
  t.strictSame(await left(), []);
});

t.test('what is not confirmed is put off, longer with each try, and loses its claim', async (t) => {
  const { asked, script, cleanUp, left, pool } = await house(t);
  script.answer = async () => 'pending';
  await cleanUp.deliver();
  t.match(await left(), [{ tries: 1, waits: true, claimedBy: null }]);
  await cleanUp.deliver();
  t.equal(asked.length, 1, 'it is not due yet');
  await pool.query(sql.type(z.object({}))`UPDATE outbox SET due_at = now() - interval '1 second'`);
  script.answer = async () => 'confirmed';
  await cleanUp.deliver();
  t.strictSame(await left(), []);
});

t.test('while the circuit is open nothing is claimed', async (t) => {
  const { asked, script, cleanUp, left } = await house(t);
  script.retryAfter = 3;
  await cleanUp.deliver();
  t.strictSame(asked, []);
  t.match(await left(), [{ tries: 0, waits: false, claimedBy: null }]);
});

t.test('rounds never overlap, and what falls due meanwhile is seen by one more round', async (t) => {
  const { asked, script, cleanUp, left, pool } = await house(t);
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  let under = 0;
  let most = 0;
  script.answer = async () => {
    most = Math.max(most, ++under);
    await gate;
    under--;
    return 'confirmed';
  };
  const first = cleanUp.deliver();
  while (asked.length === 0) await new Promise(setImmediate);
  await pool.query(sql.type(z.object({}))`INSERT INTO outbox (job_id) VALUES (${randomUUID()})`);
  const second = cleanUp.deliver();
  go();
  await Promise.all([first, second]);
  t.equal(most, 1);
  t.equal(asked.length, 2);
  t.strictSame(await left(), []);
});

t.test('a replica that dies between claim and answer leaves the clean-up to others', async (t) => {
  const { script, cleanUp, left, pool } = await house(t);
  script.answer = async () => {
    throw new Error('killed');
  };
  await cleanUp.deliver();
  t.match(
    await left(),
    [{ tries: 1, waits: true, claimedBy: 'node-1' }],
    'claimed for the time of its lease',
  );
  await pool.query(sql.type(z.object({}))`UPDATE outbox SET due_at = now() - interval '1 second'`);
  script.answer = async () => 'confirmed';
  await cleanUp.deliver();
  t.strictSame(await left(), []);
});

t.test('once it is stopped nothing is claimed, and what is under way is noted', async (t) => {
  const { asked, script, cleanUp, left, pool } = await house(t);
  let go = () => {};
  script.answer = () =>
    new Promise((resolve) => {
      go = () => resolve('confirmed');
    });
  void cleanUp.deliver();
  while (asked.length === 0) await new Promise(setImmediate);
  const stopping = cleanUp.stop();
  go();
  await stopping;
  t.strictSame(await left(), []);
  await pool.query(sql.type(z.object({}))`INSERT INTO outbox (job_id) VALUES (${randomUUID()})`);
  await cleanUp.deliver();
  t.match(await left(), [{ tries: 0, waits: false }], 'the next replica finds it due at once');
});
