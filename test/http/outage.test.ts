import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import t from 'tap';
import { DatabaseTimeout } from '../../src/db/pool.js';
import { createBulkhead } from '../../src/http/bulkhead.js';
import { createApi } from '../support/api.js';

/** A pool in which every statement ends like this. */
const failing = (error: Error | 'never') => {
  const end = () => (error === 'never' ? new Promise(() => undefined) : Promise.reject(error));
  const members = [
    'any',
    'anyFirst',
    'exists',
    'many',
    'maybeOne',
    'maybeOneFirst',
    'one',
    'oneFirst',
    'query',
    'transaction',
  ];
  return Object.fromEntries(members.map((name) => [name, end])) as unknown as CommonQueryMethods;
};
const refusedConnection = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), {
  code: 'ECONNREFUSED',
});
const lost = Object.assign(new Error('terminating connection; SELECT secret FROM t'), { code: '57P01' });
const broken = Object.assign(new Error('syntax error at SELECT secret'), { code: '42601' });

t.test('without a database calls are 503 with the time to wait, and say nothing of SQL', async (t) => {
  for (const [error, detail] of [
    [refusedConnection, /nothing was changed/],
    [lost, /not known whether/],
    [new DatabaseTimeout(5), /not known whether/],
  ] as const) {
    const api = await createApi(t, { db: failing(error) });
    const answer = await api.call('ada', 'GET', '/api/workflows');
    t.match(answer, { status: 503, body: { code: 'database_unavailable', detail } });
    t.ok(Number(answer.headers.get('retry-after')) > 0);
    t.notMatch(answer.text, /SELECT|5432/);
    const post = await api.call('ada', 'POST', '/api/workflows', {
      body: { name: 'x' },
      headers: { 'idempotency-key': 'k' },
    });
    t.equal(post.status, 503);
    t.match(await api.call(null, 'GET', '/ready'), {
      status: 503,
      body: { status: 'not_ready', pending_migrations: null },
    });
    t.equal((await api.call(null, 'GET', '/health')).status, 200);
    t.match(await api.metrics.render(), 'ide_orchestrator_http_requests_total');
  }
});

t.test('a database that does not answer at all holds nobody longer than the deadline', async (t) => {
  const api = await createApi(t, { db: failing('never'), database: { queryDeadlineMs: 100 } });
  const before = performance.now();
  t.match(await api.call('ada', 'GET', '/api/workflows'), {
    status: 503,
    body: { code: 'database_unavailable' },
  });
  t.match(await api.call(null, 'GET', '/ready'), { status: 503, body: { postgresql: 'slow' } });
  t.ok(performance.now() - before < 2000);
});

t.test('what nobody foresaw is 500, named by its request and by nothing else', async (t) => {
  const api = await createApi(t, { db: failing(broken) });
  const answer = await api.call('ada', 'GET', '/api/workflows', { headers: { 'x-request-id': 'find-me' } });
  t.match(answer, { status: 500, body: { code: 'internal_error', request_id: 'find-me' } });
  t.notMatch(answer.text, 'secret');
  t.ok(api.logs.some((line) => line.request_id === 'find-me' && line.level === 'error'));
});

t.test('a bulkhead lets so many run, so many wait, and refuses the rest', async (t) => {
  const bulkhead = createBulkhead({ width: 2, queue: 1 });
  let running = 0;
  let most = 0;
  const work = () =>
    bulkhead(async () => {
      running += 1;
      most = Math.max(most, running);
      await wait(20);
      running -= 1;
      return 'done';
    });
  const results = await Promise.allSettled([work(), work(), work(), work()]);
  t.same(
    results.map((each) => each.status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'rejected'],
  );
  t.match(results[3], { reason: { code: 'overloaded' } });
  t.equal(most, 2);
  t.equal(await work(), 'done');
});
