import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import t from 'tap';
import { DatabaseTimeout } from '../../src/db/pool.js';
import { createPulse } from '../../src/db/pulse.js';
import { createBulkhead } from '../../src/http/bulkhead.js';
import { createDatabaseGate } from '../../src/http/database-gate.js';
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
  const patient = await createApi(t, { db: failing('never'), database: { queryDeadlineMs: 60_000 } });
  let longer = 'is held';
  const held = patient.call('ada', 'GET', '/api/workflows').then(
    () => 'was answered',
    () => 'was cut off',
  );
  void held.then((how) => {
    longer = how;
  });
  t.match(await api.call('ada', 'GET', '/api/workflows'), {
    status: 503,
    body: { code: 'database_unavailable' },
  });
  t.match(await api.call(null, 'GET', '/ready'), { status: 503, body: { postgresql: 'slow' } });
  t.equal(longer, 'is held', 'where the deadline is longer');
  await patient.server.stop(0);
  t.equal(await held, 'was cut off');
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

t.test('whoever leaves while it waits for a place never runs', async (t) => {
  const bulkhead = createBulkhead({ width: 1, queue: 2 });
  let end = () => {};
  const first = bulkhead(() => new Promise<void>((resolve) => (end = resolve)));
  const left = new AbortController();
  const ran: string[] = [];
  const second = bulkhead(async () => void ran.push('second'), left.signal);
  const third = bulkhead(async () => void ran.push('third'));
  left.abort(new Error('left'));
  await t.rejects(second, { message: 'left' });
  end();
  await Promise.all([first, third]);
  t.strictSame(ran, ['third']);
});

/** A gate on a PostgreSQL that says what the test wants, on a clock of its own. */
const gated = (options: { deadlineMs?: number; width?: number } = {}) => {
  const says = { silentMs: 0, isIdle: false, now: 0 };
  const gate = createDatabaseGate({
    bulkhead: createBulkhead({ width: options.width ?? 1, queue: 10 }),
    deadlineMs: options.deadlineMs ?? 10_000,
    pulse: { silentMs: () => says.silentMs, isIdle: () => says.isIdle },
    now: () => says.now,
  });
  return { says, gate };
};
const never = () => new Promise<never>(() => undefined);

t.test('where nobody is answered nobody else is made to wait, and those who wait are let go', async (t) => {
  const { says, gate } = gated();
  let asked = 0;
  const waits = gate(never);
  const queues = gate(async () => void asked++);
  says.silentMs = 2_000;
  await t.rejects(gate(never), { code: 'database_unavailable', message: /nothing was changed/ });
  await t.rejects(waits, { code: 'database_unavailable', message: /not known whether/ });
  await t.rejects(queues, { code: 'database_unavailable' });
  t.equal(asked, 0, 'what nobody waits for any more is not done');
});

t.test('while nothing is under way one in a second tries whether PostgreSQL is back', async (t) => {
  const { says, gate } = gated({ width: 5 });
  Object.assign(says, { silentMs: 5_000, isIdle: true });
  t.equal(await gate(async () => 'tried'), 'tried');
  await t.rejects(
    gate(async () => 'not tried'),
    { code: 'database_unavailable' },
  );
  says.now = 1_000;
  t.equal(await gate(async () => 'tried'), 'tried');
  says.isIdle = false;
  says.now = 5_000;
  await t.rejects(
    gate(async () => 'what is under way finds out'),
    { code: 'database_unavailable' },
  );
});

t.test('a place is given back when the work has ended, not when its caller was let go', async (t) => {
  const { gate, says } = gated({ deadlineMs: 20 });
  let end = () => {};
  const first = gate(() => new Promise<void>((resolve) => (end = resolve)));
  says.now = 20;
  await t.rejects(first, { code: 'database_unavailable' });
  let ran = false;
  const second = gate(async () => {
    ran = true;
  });
  await wait(5);
  t.notOk(ran, 'the connection of the first is still taken');
  end();
  await second;
  t.ok(ran);
});

t.test('silence is counted only where something waits, and any answer ends it', async (t) => {
  const pulse = createPulse();
  t.teardown(pulse.stop);
  t.equal(pulse.isIdle(), true);
  const first = pulse.sent();
  const second = pulse.sent();
  t.equal(pulse.isIdle(), false);
  await wait(700);
  t.ok(pulse.silentMs() >= 250);
  first(true);
  t.equal(pulse.silentMs(), 0);
  await wait(700);
  t.ok(pulse.silentMs() >= 250, 'the other one still waits');
  second(false);
  t.ok(pulse.silentMs() >= 250, 'a wait that was given up is no answer');
  t.equal(pulse.isIdle(), true);
  pulse.sent()(true);
  t.equal(pulse.silentMs(), 0);
  await wait(300);
  t.equal(pulse.silentMs(), 0);
});
