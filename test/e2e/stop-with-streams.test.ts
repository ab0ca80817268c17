import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { SignJWT } from 'jose';
import { sql } from 'slonik';
import t from 'tap';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { createLoadServer } from '../../bench/load/load-server.js';
import { runInputOf } from '../../src/actors/run-input.js';
import { packJson } from '../../src/db/stored-bytes.js';
import { createTestDatabase } from '../support/database.js';
import { startOrchestrator } from '../support/orchestrator-process.js';
import { testSecret } from '../support/replica.js';
import { seedWorkflow } from '../support/seed.js';
import { eventually } from '../support/until.js';

const STREAMS = 1_000;
/** A busy machine may take so long for all of them together. */
const LONG_MS = 300_000;
/** Connections that are made side by side. */
const AT_ONCE = 25;
const more = {
  SOCKETS_PER_USER: '10000',
  HTTP_REQUESTS_PER_MINUTE: '1000000',
  // A run says something every two seconds, a process on a busy machine may be slow to hear it.
  RUN_IDLE_MS: '600000',
};

/** Refinements that wait for a replica, as if one had given them up. */
async function seedUnowned(pool: Awaited<ReturnType<typeof createTestDatabase>>['pool']): Promise<string[]> {
  const { workflowId, userId } = await seedWorkflow(pool, { userId: 'ann' });
  const wish = { userPrompt: 'Load', contextFilePath: null, contextSelection: null };
  const input = sql.binary(packJson(runInputOf(wish, {}, new Date().toISOString())));
  const threads = await pool.anyFirst(sql.type(z.object({ id: z.string() }))`
    WITH made AS (
      INSERT INTO proposals (
        id, workflow_id, draft_id, created_by_user_id, thread_id, user_prompt, base_revision, base_hashes, input,
        deadline_at)
      SELECT gen_random_uuid(), d.workflow_id, d.id, ${userId}, gen_random_uuid(), 'Load', 1, '{}', ${input},
             now() + interval '1 hour'
      FROM drafts d, generate_series(1, ${STREAMS}::int) WHERE d.workflow_id = ${workflowId}
      RETURNING id, thread_id
    ), tried AS (
      INSERT INTO attempts (proposal_id, attempt, job_id) SELECT id, 1, thread_id FROM made
    ), allowed AS (
      INSERT INTO proposal_access (proposal_id, user_id, role) SELECT id, ${userId}, 'owner' FROM made
    )
    SELECT thread_id AS id FROM made`);
  return [...threads];
}

/** A viewer that writes down the numbers it sees, over all the replicas that it comes to. */
function createViewer(threadId: string, token: string) {
  const viewer = { numbers: [] as number[], recoveries: [] as string[], closes: [] as number[] };
  let socket: WebSocket | null = null;
  let markClosed = () => {};
  const closed = new Promise<void>((resolve) => {
    markClosed = resolve;
  });
  return {
    ...viewer,
    /** Comes again where the replica says that it is busy, as the contract wants it. */
    async open(url: string): Promise<void> {
      while (!(await this.comes(url))) await wait(500);
    },
    /** False where it was refused with 503. */
    async comes(url: string): Promise<boolean> {
      const last = viewer.numbers.at(-1);
      const position = last === undefined ? '' : `?after=${last}&epoch=1.1`;
      socket = new WebSocket(`${url.replace('http', 'ws')}/api/ws/refinements/${threadId}${position}`, {
        headers: { authorization: `Bearer ${token}` },
        perMessageDeflate: false,
      });
      socket.on('message', (data: Buffer) => {
        const seq = /^\{"seq":(\d+)/.exec(data.toString('latin1', 0, 24))?.[1];
        if (seq !== undefined) viewer.numbers.push(Number(seq));
        else viewer.recoveries.push(/"recovery":"(\w+)"/.exec(data.toString())?.[1] ?? data.toString());
      });
      const upgraded = once(socket, 'open');
      try {
        await upgraded;
      } catch (error) {
        if (/response: 503/.test(String(error))) return false;
        throw error;
      }
      socket.once('close', (code) => {
        viewer.closes.push(code);
        markClosed();
      });
      return true;
    },
    closed,
    end: () => socket?.terminate(),
  };
}

async function inGroups<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  for (let at = 0; at < items.length; at += AT_ONCE) {
    await Promise.all(items.slice(at, at + AT_ONCE).map(work));
  }
}

/** Statuses of `/ready` with when it was asked, again and again until the port is closed. */
async function watchReadiness(url: string): Promise<{ status: number; askedAt: number }[]> {
  const statuses: { status: number; askedAt: number }[] = [];
  for (;;) {
    const askedAt = performance.now();
    const answer = await fetch(`${url}/ready`, { headers: { connection: 'close' } }).catch(() => null);
    if (answer === null) return statuses;
    await answer.arrayBuffer();
    statuses.push({ status: answer.status, askedAt });
    await wait(20);
  }
}

t.test(
  'SIGTERM with 1,000 open streams: not ready at once, all handed over, and viewers go on elsewhere without a gap (rule 12)',
  async (t) => {
    const { url: databaseUrl, pool } = await createTestDatabase(t);
    const runtime = await createLoadServer({ auto: null });
    t.teardown(() => runtime.stop());
    const parts = { databaseUrl, runtimeUrl: `http://127.0.0.1:${runtime.port}`, secret: testSecret, more };
    const threadIds = await seedUnowned(pool);
    const first = await startOrchestrator(t, parts);
    const began = performance.now();
    await eventually('every run is read', () => runtime.threads.openStreams() === STREAMS, LONG_MS);
    t.comment(`all runs read after ${Math.round(performance.now() - began)} ms`);
    const second = await startOrchestrator(t, parts);

    const token = await new SignJWT({})
      .setProtectedHeader({ alg: 'HS256' })
      .setSubject('ann')
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(Buffer.from(testSecret));
    const viewers = threadIds.map((threadId) => createViewer(threadId, token));
    t.teardown(() => {
      for (const viewer of viewers) viewer.end();
    });
    await inGroups(viewers, (viewer) => viewer.open(first.url));
    runtime.threads.pace(threadIds, 1e9, 0.5);
    await eventually('a frame each', () => viewers.every(({ numbers }) => numbers.length > 0), LONG_MS);

    const signalled = performance.now();
    const exited = first.kill('SIGTERM').then(({ code }) => ({ code, took: performance.now() - signalled }));
    const readiness = watchReadiness(first.url);
    const firstSentAway = Promise.race(viewers.map(({ closed }) => closed)).then(() => performance.now());
    await Promise.all(viewers.map(({ closed }) => closed));
    const sentAway = performance.now() - signalled;
    await inGroups(viewers, (viewer) => viewer.open(second.url));
    const before = viewers.map(({ numbers }) => numbers.length);
    const { code, took } = await exited;
    t.comment(`viewers sent away after ${Math.round(sentAway)} ms, ended after ${Math.round(took)} ms`);
    t.equal(code, 0, 'within its grace of 25 s');
    const statuses = await readiness;
    const notReady = statuses.findIndex(({ status }) => status === 503);
    t.ok(notReady >= 0, 'not ready while it hands over');
    t.notOk(
      statuses.slice(notReady).some(({ status }) => status === 200),
      'from then on',
    );
    const sentAwayAt = await firstSentAway;
    t.notOk(
      statuses.some(({ status, askedAt }) => status === 200 && askedAt > sentAwayAt),
      'before anybody is sent away',
    );
    const further = () => viewers.every(({ numbers }, index) => numbers.length > (before[index] ?? 0));
    await eventually('another frame each', further, LONG_MS);
    const gaps = viewers.filter(({ numbers }) => numbers.some((number, index) => number !== index + 1));
    t.strictSame(gaps.map(({ numbers }) => numbers).slice(0, 3), [], 'every number once');
    const told = new Set(viewers.map(({ recoveries, closes }) => `${recoveries} ${closes}`));
    t.strictSame([...told], ['exact,exact 1012'], 'and nothing else was said');

    const owners = await pool.any(sql.type(
      z.object({ owner: z.string().nullable(), deaths: z.number(), count: z.number() }),
    )`
      SELECT owner_node AS owner, max(taken_over) AS deaths, count(*) FROM proposals GROUP BY owner_node`);
    t.match([...owners], [{ deaths: 0, count: STREAMS }], 'the other replica owns them all, and nobody died');
    t.not(owners[0]?.owner, null);
    const given = await pool.oneFirst(sql.type(z.object({ count: z.number() }))`
      SELECT count(*) FROM proposal_transitions WHERE event = 'given_up'`);
    t.equal(given, STREAMS, 'each is on record');
  },
);
