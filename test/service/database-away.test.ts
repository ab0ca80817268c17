import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { createOwnPostgres } from '../support/own-postgres.js';
import type { Client, Replica } from '../support/replica.js';
import { createHouse, eventually, type House, numberedTexts } from './support/house.js';

const server = await createOwnPostgres(t);

/** Two replicas on the server that is to be ill-treated. */
async function twoReplicas(t: Test, config: Parameters<typeof createHouse>[2] = {}) {
  const house = await createHouse(t, {}, config, server);
  const other = await house.more();
  // Whatever a failed assertion left frozen would hold up the stop.
  t.teardown(() => server.thaw());
  return { house, other };
}

/** A run on each of the replicas, each with a viewer on both. */
async function runOnEach(house: House, other: Replica) {
  const runs = [];
  for (const [owner, reader] of [
    [house.replica, other],
    [other, house.replica],
  ] as const) {
    const run = await house.running(owner);
    const elsewhere = await reader.watch('ann', run.threadId);
    run.thread.push('on_llm_stream', { content: 'a' });
    await Promise.all([run.watcher.until('on_llm_stream'), elsewhere.until('on_llm_stream')]);
    runs.push({ ...run, elsewhere });
  }
  return runs;
}
type Run = Awaited<ReturnType<typeof runOnEach>>[number];

const rowSchema = z.object({ status: z.string(), generation: z.number(), takenOver: z.number() });
const stepSchema = z.object({ from: z.string().nullable(), to: z.string(), event: z.string() });

/** The row and its audit, from the database itself. */
const storedOf = async (proposalId: string) => ({
  row: await server.pool.one(sql.type(rowSchema)`
    SELECT status, owner_generation AS generation, taken_over AS "takenOver" FROM proposals WHERE id = ${proposalId}`),
  audit: [
    ...(await server.pool.any(sql.type(stepSchema)`
      SELECT from_state AS "from", to_state AS "to", event FROM proposal_transitions
      WHERE proposal_id = ${proposalId} ORDER BY row_version`)),
  ],
});

/** Each run ended once for every viewer, each transition is there once, and nobody took anything over. */
async function endedOnce(t: Test, runs: readonly Run[]) {
  for (const { proposalId, watcher, elsewhere } of runs) {
    t.equal((await watcher.closed).code, 1000);
    t.equal((await elsewhere.closed).code, 1000);
    t.equal(watcher.kinds().filter((kind) => kind === 'end').length, 1);
    t.strictSame(watcher.numbers(), [1, 2, 3, 4]);
    t.strictSame(numberedTexts(elsewhere), numberedTexts(watcher));
    const { row, audit } = await storedOf(proposalId);
    t.strictSame(row, { status: 'completed', generation: 1, takenOver: 0 });
    t.strictSame(audit, [
      { from: null, to: 'invoking', event: 'start' },
      { from: 'invoking', to: 'streaming', event: 'run.streaming' },
      { from: 'streaming', to: 'completed', event: 'runtime.ended' },
    ]);
  }
}

function endThem(runs: readonly Run[]): void {
  for (const { thread } of runs) {
    thread.push('on_llm_stream', { content: 'b' });
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
  }
}

/** Frames go on while PostgreSQL is away, and the end waits. */
async function goOnWithout(t: Test, runs: readonly Run[]) {
  endThem(runs);
  for (const { watcher, elsewhere } of runs) {
    await Promise.all([watcher.until('on_state_update'), elsewhere.until('on_state_update')]);
  }
  await wait(500);
  for (const { watcher, elsewhere } of runs) {
    t.notOk(watcher.kinds().includes('end') || elsewhere.kinds().includes('end'), 'no end before its commit');
  }
}

const timed = async <T>(work: Promise<T>) => {
  const from = performance.now();
  const result = await work;
  return { result, tookMs: performance.now() - from };
};
const readiness = (replica: Client) => timed(fetch(`${replica.url}/ready`));
const asked = (replica: Client) => timed(replica.call('ann', 'GET', '/api/workflows'));

/** Not ready within 2 s, and requests are told so long before their deadline of 10 s. */
async function saysSo(t: Test, replicas: readonly Client[], word: RegExp) {
  await Promise.all(
    replicas.map(async (replica) => {
      const [ready, request] = await Promise.all([readiness(replica), asked(replica)]);
      t.equal(ready.result.status, 503);
      t.ok(ready.tookMs < 4_000, `ready said so after ${Math.round(ready.tookMs)} ms`);
      t.match(await ready.result.json(), { status: 'not_ready', postgresql: word });
      t.match(request.result, { status: 503, body: { code: 'database_unavailable' } });
      t.ok(Number(request.result.headers.get('retry-after')) > 0);
      t.ok(request.tookMs < 6_000, `a request was told after ${Math.round(request.tookMs)} ms`);
    }),
  );
}

async function healed(replicas: readonly Client[]) {
  for (const replica of replicas) {
    await eventually('ready again', async () => (await readiness(replica)).result.status === 200);
    await eventually('answers again', async () => (await asked(replica)).result.status === 200);
  }
}

t.test(
  'a frozen PostgreSQL stops no stream, fails requests fast, and when it goes on every end is committed once (rule 17)',
  { timeout: 60_000 },
  async (t) => {
    const { house, other } = await twoReplicas(t);
    const runs = await runOnEach(house, other);
    const frozenAt = performance.now();
    server.freeze();
    await goOnWithout(t, runs);
    await saysSo(t, [house.replica, other], /slow|down/);
    const fast = await asked(house.replica);
    t.match(fast.result, { status: 503, body: { code: 'database_unavailable' } });
    t.ok(fast.tookMs < 1_500, 'who comes later is not made to wait at all');
    // Longer than the 3 s after which a beat that stands still is a death.
    await wait(Math.max(0, frozenAt + 4_500 - performance.now()));
    server.thaw();
    await endedOnce(t, runs);
    await healed([house.replica, other]);
  },
);

t.test(
  'a replica that is stopped while PostgreSQL is frozen ends all the same',
  { timeout: 60_000 },
  async (t) => {
    const { house, other } = await twoReplicas(t);
    const [run] = await runOnEach(house, other);
    server.freeze();
    const stopped = house.replica.stop().then(() => 'stopped');
    const first = await Promise.race([stopped, wait(15_000, 'still stopping', { ref: false })]);
    t.equal(first, 'stopped');
    t.equal((await run?.watcher.closed)?.code, 1012);
    server.thaw();
    await stopped;
  },
);

t.test(
  'a frozen backend holds up only those who wait for it, and costs no replica its threads (rule 12)',
  { timeout: 60_000 },
  async (t) => {
    const { house, other } = await twoReplicas(t, { database: { queryDeadlineMs: 1_000 } });
    const runs = await runOnEach(house, other);
    const beats = await server.backends('ide-orchestrator-beat');
    t.equal(beats.length, 2);
    const [of] = await server.backends('ide-orchestrator');
    server.freeze([...beats.slice(0, 1), of ?? 0]);
    const still = longestStandstill(4_500);
    endThem(runs);
    await endedOnce(t, runs);
    const more = await runOnEach(house, other);
    t.ok((await still) < 2_500, `a beat stood still for ${Math.round(await still)} ms`);
    server.thaw();
    endThem(more);
    await endedOnce(t, more);
    await healed([house.replica, other]);
  },
);

/** The longest time for which the beat of a replica did not move, in so many milliseconds from now. */
async function longestStandstill(forMs: number): Promise<number> {
  const beatSchema = z.object({ id: z.string(), beat: z.number() });
  const until = performance.now() + forMs;
  const moved = new Map<string, { beat: number; at: number }>();
  let longest = 0;
  while (performance.now() < until) {
    const nodes = await server.pool.any(sql.type(beatSchema)`SELECT id, beat FROM nodes`);
    for (const { id, beat } of nodes) {
      const before = moved.get(id);
      if (before?.beat !== beat) moved.set(id, { beat, at: performance.now() });
      else longest = Math.max(longest, performance.now() - before.at);
    }
    await wait(50);
  }
  return longest;
}

t.test(
  'a killed backend, then a server that is away: ends wait, and come once in their order (rule 17)',
  { timeout: 60_000 },
  async (t) => {
    const { house, other } = await twoReplicas(t);
    const runs = await runOnEach(house, other);
    server.kill((await server.backends('ide-orchestrator')).slice(0, 1));
    await healed([house.replica, other]);
    await server.stop();
    await goOnWithout(t, runs);
    await saysSo(t, [house.replica, other], /down/);
    await wait(4_000);
    await server.start();
    await endedOnce(t, runs);
    await healed([house.replica, other]);
  },
);

t.test(
  'a pool whose connections all wait says so by /ready, refuses who comes, and heals by itself',
  { timeout: 60_000 },
  async (t) => {
    const house = await createHouse(t, {}, { database: { poolSize: 3 } }, server);
    const { thread, watcher } = await house.running();
    const locker = new pg.Client({ connectionString: server.url });
    await locker.connect();
    t.teardown(() => locker.end());
    await locker.query('BEGIN; LOCK TABLE workflows, proposals IN ACCESS EXCLUSIVE MODE');
    const waiting = [asked(house.replica), asked(house.replica)];
    await eventually('not ready', async () => {
      const ready = await readiness(house.replica);
      if (ready.tookMs > 4_000) throw new Error(`ready said so after ${Math.round(ready.tookMs)} ms`);
      return ready.result.status === 503;
    });
    for (const { result } of await Promise.all(waiting)) {
      t.match(result, { status: 503, body: { code: 'database_unavailable' } });
    }
    thread.push('on_llm_stream', { content: 'a' });
    await watcher.until('on_llm_stream');
    await locker.query('ROLLBACK');
    await healed([house.replica]);
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
    t.equal((await watcher.closed).code, 1000);
  },
);

t.test(
  'viewers keep their sockets until nobody knows any more who may look, then are closed with 1013 (rule 17)',
  { timeout: 60_000 },
  async (t) => {
    const house = await createHouse(t, {}, { viewers: { accessUnknownMs: 3_000 } }, server);
    t.teardown(() => server.thaw());
    const { proposalId, threadId, thread, watcher } = await house.running();
    thread.push('on_llm_stream', { content: 'a' });
    await watcher.until('on_llm_stream');
    server.freeze();
    await wait(1_500);
    thread.push('on_llm_stream', { content: 'b' });
    await watcher.until('on_llm_stream', 2);
    t.equal((await watcher.closed).code, 1013);
    thread.push('on_llm_stream', { content: 'c' });
    server.thaw();
    await healed([house.replica]);
    const back = await house.replica.watch('ann', threadId, { after: 2, epoch: '1.1' });
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
    t.equal((await back.closed).code, 1000);
    t.match(back.frames[0], { data: { recovery: 'exact' } });
    t.strictSame(back.numbers(), [3, 4, 5]);
    t.match(await storedOf(proposalId), { row: { status: 'completed', generation: 1 } });
  },
);

t.test(
  'ends that find no room while PostgreSQL is away are let go, and read again when there is some (rule 17)',
  { timeout: 60_000 },
  async (t) => {
    const text = 'x'.repeat(8_000);
    // Each holds its state three times: there is room for two.
    const house = await createHouse(t, {}, { database: { waitingCommitBytes: 70_000 } }, server);
    const runs = [];
    for (let count = 0; count < 6; count++) runs.push(await house.running());
    await server.stop();
    for (const [index, { thread }] of runs.entries()) {
      thread.pushFiles({ '/a.md': `${index}${text}` });
      // The one that is kept is not the last one.
      thread.push('on_state_update', { todos: [] });
      thread.end();
    }
    const waiting = () => house.replica.logs.filter(({ msg }) => /waits for room/.test(String(msg))).length;
    await eventually('four wait', () => waiting() === 4);
    await wait(500);
    t.equal(waiting(), 4);
    await server.start();
    for (const [index, { proposalId, threadId, watcher }] of runs.entries()) {
      t.equal((await watcher.closed).code, 1000);
      t.match(await house.proposal(proposalId), {
        status: 'completed',
        generated_files: { '/a.md': { content: [`${index}${text}`] } },
      });
      await eventually('the same frames for who comes late', async () => {
        const late = await house.replica.watch('ann', threadId);
        await late.closed;
        return JSON.stringify(numberedTexts(late)) === JSON.stringify(numberedTexts(watcher));
      });
      t.strictSame((await storedOf(proposalId)).audit.length, 3);
    }
  },
);
