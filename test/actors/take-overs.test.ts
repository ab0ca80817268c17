import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { createTakeOvers } from '../../src/actors/take-overs.js';
import { rejectProposal } from '../../src/db/decisions.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitPhase, giveUp } from '../../src/db/run-progress.js';
import { nameOf } from '../../src/db/statement.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { createTestDatabase } from '../support/database.js';
import { fenceOf, seedCompleted, seedProposal, seedWorkflow } from '../support/seed.js';

const { pool } = await createTestDatabase(t);
const workflow = await seedWorkflow(pool);
const nothing = z.object({});
const logs: Record<string, unknown>[] = [];
const log = createLogger({
  level: 'info',
  production: true,
  destination: { write: (line) => void logs.push(JSON.parse(line)) },
});

const run = (query: ReturnType<typeof sql.fragment>) => pool.query(sql.type(nothing)`${query}`);
const clear = () =>
  run(sql.fragment`
    WITH gone AS (DELETE FROM nodes)
    UPDATE proposals SET status = 'failed', phase = NULL, owner_node = NULL, error = '{"code":"x","message":"y"}'
    WHERE status = 'processing'`);
const register = (...ids: string[]) =>
  run(sql.fragment`
    INSERT INTO nodes (id, name, runtime_reachable) SELECT id, id, true FROM unnest(${sql.array(ids, 'text')}) id`);
const beat = (...ids: string[]) =>
  run(sql.fragment`UPDATE nodes SET beat = beat + 1 WHERE id = ANY(${sql.array(ids, 'text')})`);
const ownersOf = async (rows: readonly ThreadRow[]) => [
  ...(await pool.anyFirst(sql.type(z.object({ owner: z.string().nullable() }))`
    SELECT owner_node AS owner FROM proposals
    WHERE id = ANY(${sql.array(
      rows.map((row) => row.proposalId),
      'uuid',
    )}) ORDER BY created_at, id`)),
];
const seed = (count: number, ownerNode: string) =>
  Promise.all(Array.from({ length: count }, () => seedProposal(pool, workflow, { ownerNode })));

/** One replica's take-overs on a clock of the test's. */
function replica(node: string, gained: (row: ThreadRow) => Promise<void> = async () => undefined) {
  const world = { now: 0, away: false, beforeList: async (): Promise<unknown> => undefined };
  const metrics = createMetrics({ processMetrics: false });
  const taken: ThreadRow[] = [];
  const db = new Proxy(pool, {
    get(target, name) {
      if (name !== 'any') return Reflect.get(target, name);
      return async (statement: Parameters<typeof target.any>[0]) => {
        if (world.away) throw new Error('away');
        if (nameOf(statement.sql) === 'list_reviveable') await world.beforeList();
        return target.any(statement);
      };
    },
  });
  const takeOvers = createTakeOvers({
    db,
    node,
    now: () => world.now,
    metrics,
    log,
    isStopping: () => false,
    async gained(row) {
      taken.push(row);
      await gained(row);
    },
  });
  const poll = async (now: number) => {
    world.now = now;
    await takeOvers.poll();
    await takeOvers.settled();
  };
  /** Polls twice a second. */
  const polls = async (from: number, to: number) => {
    for (let now = from; now <= to; now += 500) await poll(now);
  };
  return { world, takeOvers, taken, poll, polls, metrics };
}

t.beforeEach(clear);

t.test('what a dead replica leaves is taken over once, and counted (rule 12)', async (t) => {
  await register('me', 'dead');
  const rows = await seed(3, 'dead');
  const me = replica('me');
  await me.polls(0, 2_500);
  t.strictSame(me.taken, []);
  await me.poll(3_000);
  t.strictSame(await ownersOf(rows), ['me', 'me', 'me']);
  t.match(me.taken[0], { ownerGeneration: 2, takenOver: 1 });
  t.match(logs.at(-1), { msg: 'thread taken over', from_node: 'dead', took_ms: 3_000 });
  t.match(await me.metrics.render(), /threads_taken_over_total 3/);
  await me.poll(3_500);
  t.equal(me.taken.length, 3);
});

t.test('replicas share what a dead one leaves, and one alone leaves nothing (rule 13)', async (t) => {
  await register('a', 'b', 'dead');
  await seed(2, 'b');
  const rows = await seed(10, 'dead');
  const [a, b] = [replica('a'), replica('b')];
  for (let now = 0; now <= 2_500; now += 500) {
    await beat('a', 'b');
    await Promise.all([a.poll(now), b.poll(now)]);
  }
  await beat('a', 'b');
  await Promise.all([a.poll(3_000), b.poll(3_000)]);
  t.strictSame([a.taken.length, b.taken.length], [6, 4], 'with the two that b had, six each');
  t.notOk((await ownersOf(rows)).includes('dead'));
  // From now on b beats and takes nothing.
  const later = await seed(4, 'gone');
  await beat('b');
  await a.poll(3_500);
  t.equal(a.taken.length, 8, 'its half of sixteen');
  await beat('b');
  await a.poll(4_000);
  await beat('b');
  await a.poll(4_500);
  t.equal(a.taken.length, 10, 'and a second later the rest');
  t.notOk((await ownersOf(later)).includes('gone'));
});

t.test('an owner that is back on record keeps its thread (rule 12)', async (t) => {
  await register('me');
  const [row] = (await seed(1, 'back')) as [ThreadRow];
  const { takeOver } = await import('../../src/db/threads.js');
  const wanted = {
    threadId: row.threadId,
    fromNode: 'back',
    fromGeneration: 1,
    fromBeat: null,
    toNode: 'me',
  };
  await register('back');
  t.equal(await takeOver(pool, { ...wanted, transitionId: crypto.randomUUID() }), null);
  await run(sql.fragment`DELETE FROM nodes WHERE id = 'back'`);
  t.ok(await takeOver(pool, { ...wanted, transitionId: crypto.randomUUID() }));
});

t.test(
  'after an outage nobody is judged for 10 s, and what was given up is taken at once (rule 13)',
  async (t) => {
    await register('me', 'slow');
    const held = await seed(1, 'slow');
    const given = await seed(1, 'stopped');
    await giveUp(pool, fenceOf(given[0] as ThreadRow), { from: 'invoking', attempt: 1 });
    const me = replica('me');
    me.world.away = true;
    await t.rejects(me.poll(0));
    me.world.away = false;
    await me.polls(500, 10_000);
    t.strictSame([await ownersOf(held), await ownersOf(given)], [['slow'], ['me']]);
    t.equal(me.taken[0]?.takenOver, 0, 'a hand-over is no death');
    await me.poll(10_500);
    t.strictSame(await ownersOf(held), ['me']);
  },
);

t.test(
  'a thread that was given up is not taken back for 15 s while another replica lives (rule 12)',
  async (t) => {
    await register('me', 'other');
    const [row] = (await seed(1, 'me')) as [ThreadRow];
    const me = replica('me');
    await me.poll(0);
    t.ok(me.takeOvers.anotherReaches());
    const giving: ReturnType<typeof me.takeOvers.givingUp>[] = [];
    me.world.beforeList = async () => {
      if (giving.length === 0) giving.push(me.takeOvers.givingUp(row.threadId));
      await giveUp(pool, fenceOf(row), { from: 'invoking', attempt: 1 });
    };
    const polls = async (from: number, to: number) => {
      for (let now = from; now <= to; now += 500) {
        await beat('other');
        await me.poll(now);
      }
    };
    await polls(500, 500);
    t.strictSame(await ownersOf([row]), [null], 'a list that shows it without an owner is no reason');
    await polls(1_000, 20_000);
    t.strictSame(await ownersOf([row]), [null], 'as long as the commit has no answer');
    giving[0]?.settled(true);
    await polls(20_500, 34_500);
    t.strictSame(await ownersOf([row]), [null]);
    await polls(35_000, 35_000);
    t.strictSame(await ownersOf([row]), ['me']);
    const [given, next] = (await seed(2, 'me')) as [ThreadRow, ThreadRow];
    await giveUp(pool, fenceOf(given), { from: 'invoking', attempt: 1 });
    me.takeOvers.givingUp(given.threadId).settled(false);
    await polls(35_500, 37_000);
    t.strictSame(await ownersOf([given]), ['me'], 'what somebody else has given up can be taken');
    await giveUp(pool, fenceOf(next), { from: 'invoking', attempt: 1 });
    me.takeOvers.givingUp(next.threadId).settled(true);
    await run(sql.fragment`DELETE FROM nodes WHERE id = 'other'`);
    await me.poll(37_500);
    t.notOk(me.takeOvers.anotherReaches());
    t.strictSame(await ownersOf([next]), ['me'], 'where no other lives it goes on here');
  },
);

t.test(
  'an overdue run that nobody ends is taken over from a living owner, once, and nothing that was decided (rule 13)',
  async (t) => {
    await register('me', 'stuck');
    const old = await seed(3, 'stuck');
    const fresh = await seed(1, 'stuck');
    const decided = await seedCompleted(pool, workflow, { '/a.md': 'x' });
    await rejectProposal(pool, { proposalId: decided.proposalId, userId: workflow.userId });
    await run(
      sql.fragment`ALTER TABLE proposal_transitions DISABLE TRIGGER proposal_transitions_append_only`,
    );
    await run(sql.fragment`UPDATE proposal_transitions SET at = at - interval '5 minutes'`);
    await run(sql.fragment`ALTER TABLE proposal_transitions ENABLE TRIGGER proposal_transitions_append_only`);
    const overdue = [...old, decided].map((row) => row.proposalId);
    await run(sql.fragment`
    UPDATE proposals SET deadline_at = now() - interval '2 minutes' WHERE id = ANY(${sql.array(overdue, 'uuid')})`);
    // One of them is being ended at this moment.
    const [acting] = old as [ThreadRow, ThreadRow, ThreadRow];
    await commitPhase(pool, fenceOf(acting), { from: 'invoking', to: 'finalizing', event: 'x', attempt: 1 });
    const me = replica('me');
    me.world.away = true;
    await t.rejects(me.poll(0));
    me.world.away = false;
    for (let now = 500; now < 10_500; now += 500) {
      await beat('stuck');
      await me.poll(now);
      await me.takeOvers.sweep();
    }
    t.strictSame(me.taken, [], 'an outage keeps everybody from acting');
    await beat('stuck');
    await me.poll(10_500);
    await me.takeOvers.sweep();
    t.strictSame((await ownersOf(old)).sort(), ['me', 'me', 'stuck']);
    t.strictSame(await ownersOf([...fresh, decided]), ['stuck', null]);
    t.match(me.taken[0], { takenOver: 0, ownerGeneration: 2 }, 'which is no death');
    await replica('third').takeOvers.sweep();
    t.strictSame((await ownersOf(old)).sort(), ['me', 'me', 'stuck'], 'whoever took it over has a minute');
  },
);

t.test('fifty threads are opened at a time, and beats are read meanwhile (rule 13)', async (t) => {
  await register('me', 'dead', 'dying');
  await seed(210, 'dead');
  let under = 0;
  let most = 0;
  const doors: (() => void)[] = [];
  const me = replica('me', async () => {
    most = Math.max(most, ++under);
    await new Promise<void>((resolve) => doors.push(resolve));
    under--;
  });
  for (let now = 0; now <= 2_500; now += 500) {
    await beat('dying');
    await me.poll(now);
  }
  const rows = await seed(2, 'dying');
  me.world.now = 3_000;
  await beat('dying');
  await me.takeOvers.poll();
  for (me.world.now = 3_500; me.world.now <= 6_500; me.world.now += 500) await me.takeOvers.poll();
  while ((await ownersOf(rows)).includes('dying')) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    await me.takeOvers.poll();
  }
  t.strictSame([me.taken.length, most], [50, 50], 'all have an owner; what is opened waits for these');
  t.ok(
    rows.every(({ threadId }) => me.takeOvers.waits(threadId)),
    'and is not revived beside them',
  );
  const opening = setInterval(() => {
    for (const open of doors.splice(0)) open();
  }, 1);
  await me.takeOvers.settled();
  clearInterval(opening);
  t.equal(most, 50);
  t.equal(me.taken.length, 212);
});
