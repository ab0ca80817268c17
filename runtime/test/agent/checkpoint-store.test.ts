import { randomUUID } from 'node:crypto';
import net from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { test } from 'tap';
import { setupCheckpoints } from '../../src/agent/checkpoints.js';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import { sampleFiles } from '../models/sample-specification.js';
import {
  completedTexts,
  createStore,
  createTestRunner,
  databaseUrl,
  inputOf,
  statesOf,
  watch,
} from './runner-harness.js';

const cancelled = { code: 'cancelled', message: 'The run was cancelled.', retryable: false };

async function rowsOf(pool: pg.Pool, schema: string, threadId: string): Promise<number> {
  const counts = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes'].map((table) =>
    pool.query<{ n: string }>(`SELECT count(*) AS n FROM ${schema}.${table} WHERE thread_id = $1`, [
      threadId,
    ]),
  );
  return (await Promise.all(counts)).reduce((sum, { rows }) => sum + Number(rows[0]?.n), 0);
}

test('Six processes may set the checkpoints up at once', async (t) => {
  const schema = `agent_${randomUUID().replaceAll('-', '')}`;
  const pools = Array.from({ length: 6 }, () => new pg.Pool({ connectionString: databaseUrl(), max: 2 }));
  t.teardown(async () => {
    await pools[0]?.query(`DROP SCHEMA ${schema} CASCADE`);
    await Promise.all(pools.map((pool) => pool.end()));
  });
  await t.resolves(Promise.all(pools.map((pool) => setupCheckpoints(pool, schema))));
});

test('A purged thread stays clean, whether its run was aborted before or is still running', async (t) => {
  const { runner, pool, schema } = await createTestRunner(t);
  for (let at = 0; at < 6; at += 1) {
    const { handle, seen, threadId } = watch(runner, inputOf('Add web search', sampleFiles()));
    await seen(({ event_type }) => event_type === (at % 2 === 0 ? 'on_tool_start' : 'on_tool_end'));
    if (at < 3) {
      handle.abort(cancelled);
      await handle.done;
    }
    t.equal(await runner.purge(threadId), true);
    await handle.done;
    await pause(100);
    t.equal(await rowsOf(pool, schema, threadId), 0);
    t.equal(await runner.purge(threadId), false);
  }
  t.equal(await runner.purge('nobody'), false);
});

test('A run whose PostgreSQL goes away is interrupted, not failed, and resumes when it is back', async (t) => {
  const { schema } = await createStore(t);
  const proxy = await createProxy();
  const pool = new pg.Pool({ connectionString: proxy.url, max: 5, connectionTimeoutMillis: 30_000 });
  pool.on('error', () => {});
  t.teardown(async () => {
    await pool.end();
    await proxy.close();
  });
  const told: string[] = [];
  const runner = createDeepAgentRunner({
    pool,
    schema,
    model: { kind: 'scripted', chunkDelayMs: 2 },
    logger: { warn: (_, message) => told.push(message) },
  });
  const input = inputOf('Add web search', sampleFiles());
  const first = watch(runner, input);
  await first.seen(({ event_type, data }) => event_type === 'on_tool_end' && data.name === 'task');
  proxy.cut(true);
  t.same(await first.done, { status: 'interrupted', reason: 'store_unavailable' });
  t.ok(told.length > 0);
  const away = watch(runner, input, first.threadId, true);
  t.same(await away.done, { status: 'interrupted', reason: 'store_unavailable' });
  t.same(away.events, [], 'nothing is told of a state that cannot be read');

  proxy.cut(false);
  const second = watch(runner, input, first.threadId, true);
  t.match(completedTexts(await second.done)['/definition.json'], /web_search/);
  t.ok((statesOf(second.events)[0]?.messages.length ?? 0) > 1, 'it goes on from its checkpoint');
});

/** A TCP proxy in front of the PostgreSQL of the tests that can cut every connection. */
async function createProxy() {
  const target = new URL(databaseUrl());
  const sockets = new Set<net.Socket>();
  let down = false;
  const server = net.createServer((near) => {
    if (down) {
      near.destroy();
      return;
    }
    const far = net.connect(Number(target.port), target.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(target);
  url.port = String((server.address() as net.AddressInfo).port);
  return {
    url: url.toString(),
    cut(away: boolean) {
      down = away;
      if (away) for (const socket of sockets) socket.destroy();
    },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

test('No step with a checkpoint stands between an input and the first turn but the one that hears the reader', async (t) => {
  const { runner, pool, schema } = await createTestRunner(t);
  const run = watch(runner, inputOf('Add web search', sampleFiles()));
  t.match(await run.done, { status: 'completed' });
  const { rows } = await pool.query<{ step: string; main: boolean }>(
    `SELECT DISTINCT substr(channel, 11) AS step, checkpoint_ns = '' AS main FROM ${schema}.checkpoint_blobs
      WHERE thread_id = $1 AND channel LIKE 'branch:to:%' ORDER BY main DESC, step`,
    [run.threadId],
  );
  t.same(
    rows.map(({ step, main }) => `${main ? '' : 'sub-agent: '}${step}`),
    [
      'model_request',
      'reader-inbox.after_agent',
      'reader-inbox.before_model',
      'todoListMiddleware.after_model',
      'sub-agent: model_request',
    ],
  );
});
