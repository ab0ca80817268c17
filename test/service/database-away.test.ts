import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { createOwnPostgres } from '../support/own-postgres.js';
import type { Client, Replica } from '../support/replica.js';
import { eventually, PATIENCE_MS } from '../support/until.js';
import { createHouse, type House, numberedTexts } from './support/house.js';

const server = await createOwnPostgres(t);
/** Of a request that asks the database. */
const deadlineMs = 12_000;

/** Two replicas on the server that is to be ill-treated. */
async function twoReplicas(t: Test, queryDeadlineMs = deadlineMs) {
  const house = await createHouse(t, {}, { database: { queryDeadlineMs } }, server);
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

const readiness = (replica: Client) => fetch(`${replica.url}/ready`);
const asked = (replica: Client) => replica.call('ann', 'GET', '/api/workflows');

/** Not ready, and requests are told so, before a request would be at its own deadline. */
async function saysSo(t: Test, replicas: readonly Client[], word: RegExp) {
  let late = false;
  const deadline = setTimeout(() => {
    late = true;
  }, deadlineMs);
  await Promise.all(
    replicas.map(async (replica) => {
      const [ready, request] = await Promise.all([readiness(replica), asked(replica)]);
      t.equal(ready.status, 503);
      t.match(await ready.json(), { status: 'not_ready', postgresql: word });
      t.match(request, { status: 503, body: { code: 'database_unavailable' } });
      t.ok(Number(request.headers.get('retry-after')) > 0);
    }),
  );
  clearTimeout(deadline);
  t.notOk(late, 'nobody waited for the deadline');
}

async function healed(replicas: readonly Client[]) {
  for (const replica of replicas) {
    await eventually('ready again', async () => (await readiness(replica)).status === 200);
    await eventually('answers again', async () => (await asked(replica)).status === 200);
  }
}

t.test(
  'a frozen PostgreSQL stops no stream, fails requests fast, and when it goes on every end is committed once (rule 17)',
  async (t) => {
    const { house, other } = await twoReplicas(t);
    const runs = await runOnEach(house, other);
    const frozenAt = performance.now();
    server.freeze();
    await goOnWithout(t, runs);
    await saysSo(t, [house.replica, other], /slow|down/);
    const refused = { status: 503, body: { code: 'database_unavailable', detail: /nothing was changed/ } };
    let told = false;
    const late = asked(house.replica).finally(() => {
      told = true;
    });
    // These ask nobody: on a machine of any speed all of them together are shorter than any wait for PostgreSQL.
    for (let count = 0; count < 100; count++)
      await (await fetch(`${house.replica.url}/health`)).arrayBuffer();
    t.ok(told, 'who comes later is not made to wait at all');
    t.match(await late, refused);
    // Longer than the 3 s after which a beat that stands still is a death.
    await wait(Math.max(0, frozenAt + 4_500 - performance.now()));
    server.thaw();
    await endedOnce(t, runs);
    await healed([house.replica, other]);
  },
);

t.test('a replica that is stopped while PostgreSQL is frozen ends all the same', async (t) => {
  const { house, other } = await twoReplicas(t);
  const [run] = await runOnEach(house, other);
  server.freeze();
  const stopped = house.replica.stop().then(() => 'stopped');
  const first = await Promise.race([stopped, wait(PATIENCE_MS, 'still stopping', { ref: false })]);
  t.equal(first, 'stopped');
  t.equal((await run?.watcher.closed)?.code, 1012);
  server.thaw();
  await stopped;
});

t.test(
  'a frozen backend holds up only those who wait for it, and costs no replica its threads (rule 12)',
  async (t) => {
    const { house, other } = await twoReplicas(t, 1_000);
    const runs = await runOnEach(house, other);
    const beats = await server.backends('ide-orchestrator-beat');
    t.equal(beats.length, 2);
    const [of] = await server.backends('ide-orchestrator');
    server.freeze([...beats.slice(0, 1), of ?? 0]);
    // Longer than the 3 s after which a beat that stands still is a death.
    const long = wait(4_500);
    const before = await beatsNow();
    endThem(runs);
    await endedOnce(t, runs);
    const more = await runOnEach(house, other);
    await long;
    await eventually('both hearts beat on', async () => {
      const beating = [...(await beatsNow())].filter(([id, beat]) => beat > (before.get(id) ?? beat) + 1);
      return beating.length === 2;
    });
    server.thaw();
    endThem(more);
    await endedOnce(t, more);
    await healed([house.replica, other]);
  },
);

/** The beat of each replica. */
async function beatsNow(): Promise<Map<string, number>> {
  const beatSchema = z.object({ id: z.string(), beat: z.number() });
  const nodes = await server.pool.any(sql.type(beatSchema)`SELECT id, beat FROM nodes`);
  return new Map(nodes.map(({ id, beat }) => [id, beat]));
}

t.test(
  'a killed backend, then a server that is away: ends wait, and come once in their order (rule 17)',
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
  async (t) => {
    const house = await createHouse(t, {}, { database: { poolSize: 3 } }, server);
    const { thread, watcher } = await house.running();
    const locker = new pg.Client({ connectionString: server.url });
    await locker.connect();
    t.teardown(() => locker.end());
    await locker.query('BEGIN; LOCK TABLE workflows, proposals IN ACCESS EXCLUSIVE MODE');
    const waiting = [asked(house.replica), asked(house.replica)];
    await eventually('not ready', async () => (await readiness(house.replica)).status === 503);
    for (const answer of await Promise.all(waiting)) {
      t.match(answer, { status: 503, body: { code: 'database_unavailable' } });
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
  async (t) => {
    const house = await createHouse(t, {}, { viewers: { accessUnknownMs: 8_000 } }, server);
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
