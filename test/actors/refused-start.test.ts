import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { type CommonQueryMethods, sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { listTransitions } from '../../src/db/audit.js';
import { requestCancel } from '../../src/db/decisions.js';
import { keepStart, readThread, takeOver } from '../../src/db/proposals.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { nameOf } from '../../src/db/statement.js';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

/** A replica whose runtime refuses the first invoke, and whose commit of that refusal waits until it is let through. */
async function bench(owner: Test) {
  const { pool } = await createTestDatabase(owner);
  const runtime = await createScriptedRuntime();
  owner.teardown(() => runtime.stop());
  const answers = [{ status: 503 }];
  runtime.script.invoke = ({ threadId }) =>
    answers.shift() ?? { status: 200, body: { thread_id: threadId, status: 'started' } };
  runtime.script.stream = (socket) =>
    socket.send(JSON.stringify({ seq: 1, event_type: 'on_llm_stream', data: { content: 'a' } }));
  let letThrough = () => {};
  const through = new Promise<void>((resolve) => {
    letThrough = resolve;
  });
  let refusals = 0;
  const slow: CommonQueryMethods = {
    ...pool,
    async maybeOne(query) {
      if (nameOf(query.sql) === 'commit_refused_start') {
        refusals++;
        await through;
      }
      return pool.maybeOne(query);
    },
  };
  const { registry, config } = createRegistry(owner, {
    pool: slow,
    runtimeUrl: runtime.url,
    node: 'node-1',
    config: { runs: { startWaitMs: 60_000 } },
  });
  const row = await seedProposal(pool, await seedWorkflow(pool));
  const now = async () => (await readThread(pool, row)) as ThreadRow;
  const state = () => Object.keys(registry.counts())[0];
  /** The request that waits for the first invoke; resolves with its answer. */
  const start = () => registry.startRun(row, null);
  const begun = () => until(() => refusals > 0, 10_000);
  /** What the request is told whose time is over while the refusal is being committed. */
  const startOutOfTime = async () => {
    void start();
    await begun();
    config.runs.startWaitMs = 0;
    return start();
  };
  const streams = async () => {
    while ((await now()).phase !== 'streaming') await wait(10);
  };
  const events = async () => (await listTransitions(pool, row)).map(({ event }) => event);
  return {
    pool,
    runtime,
    row,
    now,
    state,
    start,
    startOutOfTime,
    streams,
    begun,
    events,
    letThrough,
    refusals: () => refusals,
  };
}

t.test('a refusal is told when it is committed, and not before (rule 8)', async (t) => {
  const { start, now, begun, letThrough } = await bench(t);
  let told = false;
  const outcome = start().finally(() => {
    told = true;
  });
  await begun();
  t.equal(told, false);
  letThrough();
  t.equal(await outcome, 'refused');
  t.match(await now(), { status: 'failed', error: { code: 'runtime_unavailable' } });
});

t.test(
  'a start that is kept before its refusal is committed goes on, and is invoked again (rule 8)',
  async (t) => {
    const { pool, runtime, row, now, startOutOfTime, streams, letThrough, refusals, events } = await bench(t);
    t.equal(await startOutOfTime(), 'refusing');
    t.match(await now(), { status: 'processing', version: 1 });
    t.equal(await keepStart(pool, { ...row, transitionId: randomUUID() }), true);
    letThrough();
    await streams();
    t.equal(runtime.requestsOf('invoke').length, 2);
    t.equal(refusals(), 1, 'it is not tried again');
    t.strictSame(await events(), ['start', 'start_kept', 'run.streaming']);
  },
);

t.test('a refusal that nobody waits for any more is not committed (rule 8)', async (t) => {
  const { pool, runtime, row, startOutOfTime, streams, letThrough, events } = await bench(t);
  t.equal(await startOutOfTime(), 'refusing');
  // The commit that is under way meets somebody else's change, and would be tried again.
  await pool.query(sql.type(z.object({}))`
    UPDATE proposals SET access_version = access_version + 1, version = version + 1 WHERE id = ${row.proposalId}`);
  letThrough();
  await streams();
  t.equal(runtime.requestsOf('invoke').length, 2);
  t.strictSame(await events(), ['start', 'run.streaming']);
});

t.test('a start whose refusal was committed behind the wait cannot be kept', async (t) => {
  const { pool, row, now, state, startOutOfTime, letThrough } = await bench(t);
  t.equal(await startOutOfTime(), 'refusing');
  letThrough();
  await until(() => state() === 'failed', 10_000);
  t.equal(await keepStart(pool, { ...row, transitionId: randomUUID() }), false);
  t.match(await now(), { status: 'failed', version: 2, error: { code: 'runtime_unavailable' } });
});

t.test('a cancel that was committed before a refusal is the outcome (rule 4)', async (t) => {
  const { pool, row, now, start, begun, letThrough } = await bench(t);
  const outcome = start();
  await begun();
  await requestCancel(pool, { proposalId: row.proposalId, userId: 'ada' });
  letThrough();
  t.equal(await outcome, 'started');
  t.match(await now(), { status: 'failed', error: { code: 'cancelled' } });
});

t.test('a refusal that another replica was quicker than is none', async (t) => {
  const { pool, row, start, begun, letThrough } = await bench(t);
  const outcome = start();
  await begun();
  const { threadId, ownerNode: fromNode, ownerGeneration: fromGeneration } = row;
  const change = { threadId, fromNode, fromGeneration, fromBeat: null, toNode: 'node-2' };
  await takeOver(pool, { ...change, transitionId: randomUUID() });
  letThrough();
  t.equal(await outcome, 'started', 'it goes on there');
});
