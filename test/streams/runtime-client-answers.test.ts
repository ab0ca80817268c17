import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { test } from 'tap';
import { countOf, createRuntimeClientFixture, jobOf } from '../support/runtime-client-fixture.js';
import type { ScriptedAnswer } from '../support/scripted-runtime.js';
import { until } from '../support/until.js';

const requests = (endpoint: string, status: string) =>
  `ide_orchestrator_deepagents_runtime_requests_total{endpoint="${endpoint}",status="${status}"}`;

test('a healthy runtime starts the run, tells its state, cancels it and cleans it up', async (t) => {
  const { client, runtime, metrics } = await createRuntimeClientFixture(t.teardown);
  t.same(await client.invoke(jobOf('job-1')), { kind: 'started', threadId: 'job-1' });
  t.same(runtime.requests[0]?.body, jobOf('job-1'));
  runtime.threads.get('job-1')?.pushFiles({ '/a.md': 'one\ntwo' });
  t.same(await client.getState('job-1'), {
    kind: 'state',
    state: {
      thread_id: 'job-1',
      status: 'running',
      result: null,
      generated_files: { '/a.md': { content: ['one', 'two'] } },
    },
  });
  t.equal(await client.cancel('job-1'), 'accepted');
  t.match(await client.getState('job-1'), { state: { status: 'failed', error: { code: 'cancelled' } } });
  t.equal(await client.cleanup('job-1'), 'confirmed');
  t.equal(await client.cleanup('job-1'), 'confirmed', '404 thread_not_found confirms too');
  t.equal(await client.cancel('job-1'), 'not_found');
  t.same(await client.getState('job-1'), { kind: 'not_found' });
  t.equal(await countOf(metrics, requests('invoke', '200')), 1);
  t.equal(await countOf(metrics, requests('cleanup', '204')), 1);
  t.equal(await countOf(metrics, requests('cleanup', '404')), 1);
});

test('the stored input goes out byte for byte, and opaque thread ids are escaped', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {
    state: () => ({ status: 404 }),
  });
  const input = Buffer.from(` ${JSON.stringify(jobOf('job-2'))}\n`);
  t.match(await client.invoke(input), { kind: 'started' });
  t.equal(runtime.requests[0]?.headers['content-length'], String(input.length));
  await client.getState('a/b?c#d é \ud800');
  t.equal(runtime.requests[1]?.url, '/deepagents-runtime/state/a%2Fb%3Fc%23d%20%C3%A9%20%EF%BF%BD');
});

const invokeAnswers: [string, ScriptedAnswer, object][] = [
  ['410 is gone', { status: 410, body: { code: 'thread_gone', message: 'x' } }, { kind: 'gone' }],
  [
    '422 is rejected with the runtime’s words',
    { status: 422, body: { code: 'invalid_model', message: 'no such model' } },
    { kind: 'rejected', status: 422, message: 'no such model' },
  ],
  [
    'another 4xx without a readable body is rejected too',
    { status: 404, body: '<html>' },
    { kind: 'rejected', status: 404, message: 'The runtime answered 404' },
  ],
  [
    'a rejection is certain even when its body is cut short',
    { status: 400, body: '{"code"', cutBody: true },
    { kind: 'rejected', status: 400 },
  ],
  [
    '429 is refused for now, as long as it says',
    { status: 429, body: {}, headers: { 'retry-after': '7' } },
    { kind: 'refused', reason: 'status', status: 429, retryAfterSeconds: 7 },
  ],
  [
    '503 is refused',
    { status: 503, body: 'x', headers: { 'retry-after': 'soon' } },
    { kind: 'refused', reason: 'status', status: 503, retryAfterSeconds: null },
  ],
  [
    '202 is no 200, thus refused',
    { status: 202, body: { thread_id: 'x', status: 'started' } },
    { kind: 'refused', reason: 'status', status: 202 },
  ],
  [
    'a redirect is not followed',
    { status: 302, headers: { location: '/' } },
    { kind: 'refused', status: 302 },
  ],
  ['200 without JSON is unknown', { status: 200, body: 'started' }, { kind: 'unknown', reason: 'broken' }],
  [
    '200 without a thread is unknown',
    { status: 200, body: { status: 'started' } },
    { kind: 'unknown', reason: 'broken' },
  ],
  [
    '200 with a thread id that cannot be stored is unknown',
    { status: 200, body: { thread_id: 'a\u0000', status: 'started' } },
    { kind: 'unknown', reason: 'broken' },
  ],
  [
    '200 with far too long a body is unknown',
    { status: 200, body: 'x'.repeat(100_000) },
    { kind: 'unknown', reason: 'broken' },
  ],
  [
    '200 that breaks off is unknown',
    { status: 200, body: '{"thread_id"', cutBody: true },
    { kind: 'unknown', reason: 'reset' },
  ],
  ['a connection cut after the request is unknown', 'cut', { kind: 'unknown', reason: 'reset' }],
  ['silence is unknown', 'hang', { kind: 'unknown', reason: 'timeout' }],
];
for (const [title, answer, expected] of invokeAnswers) {
  test(`invoke: ${title}`, async (t) => {
    const times = answer === 'hang' ? { invokeDeadlineMs: 400 } : {};
    const script = { invoke: () => answer };
    const { client, runtime } = await createRuntimeClientFixture(t.teardown, script, { times });
    t.match(await client.invoke(jobOf('job')), expected);
    t.equal(runtime.requests.length, 1, 'and is never repeated here');
  });
}

test('invoke: no connection is a certain refusal', async (t) => {
  const { client, runtime, metrics } = await createRuntimeClientFixture(t.teardown);
  await runtime.goAway();
  t.same(await client.invoke(jobOf('job')), {
    kind: 'refused',
    reason: 'unreachable',
    status: null,
    retryAfterSeconds: null,
  });
  t.equal(await countOf(metrics, requests('invoke', 'unreachable')), 1);
});

test('invoke: a connection that is never made is a certain refusal, within a deadline of its own', async (t) => {
  // Accepts TCP and never speaks TLS, so that no byte of the request can be sent.
  const silent = createServer((socket) => socket.on('error', () => socket.destroy()));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.teardown(() => silent.close());
  const { port } = silent.address() as AddressInfo;
  const { client } = await createRuntimeClientFixture(
    t.teardown,
    {},
    { url: `https://127.0.0.1:${port}`, times: { handshakeTimeoutMs: 100 } },
  );
  // The deadline of the call itself would make it unknown.
  t.match(await client.invoke(jobOf('job')), { kind: 'refused', reason: 'unreachable' });
});

test('a deadline aborts the request on the wire', async (t) => {
  const script = { invoke: () => 'hang' as const };
  const times = { invokeDeadlineMs: 400 };
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, script, { times });
  const began = performance.now();
  t.match(await client.invoke(jobOf('job')), { kind: 'unknown', reason: 'timeout' });
  t.ok(performance.now() - began >= 395);
  await until(() => runtime.requests[0]?.aborted === true);
  t.equal(runtime.requests[0]?.aborted, true);
});

test('a signal aborts the request on the wire, before it is sent too', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, { invoke: () => 'hang' });
  const controller = new AbortController();
  const under = client.invoke(jobOf('job'), { signal: controller.signal });
  await runtime.untilRequest('invoke');
  controller.abort();
  t.match(await under, { kind: 'unknown', reason: 'aborted' });
  t.match(await client.invoke(jobOf('job'), { signal: controller.signal }), { kind: 'unknown' });
  await until(() => runtime.requests[0]?.aborted === true);
  t.equal(runtime.requests.length, 1);
  t.equal(runtime.requests[0]?.aborted, true);
});

test('state, cancel and cleanup are repeated while the runtime seems away', async (t) => {
  const answers: ScriptedAnswer[] = [{ status: 503 }, 'cut'];
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {
    state: () => answers.shift(),
  });
  await client.invoke(jobOf('job'));
  t.match(await client.getState('job'), { kind: 'state', state: { status: 'running' } });
  t.equal(runtime.requestsOf('state').length, 3);
});

test('after the last repetition the answer is away or pending', async (t) => {
  const script = { state: down, cancel: down, cleanup: down };
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, script);
  t.same(await client.getState('job'), { kind: 'away' });
  t.equal(runtime.requestsOf('state').length, 3);
  t.equal(await client.cleanup('job'), 'pending');
  t.equal(runtime.requestsOf('cleanup').length, 3);
  t.equal(await client.cancel('job'), 'away');
});

test('an aborted call is not repeated', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(
    t.teardown,
    { state: down },
    { retry: { count: 5, baseMs: 60_000, maxMs: 60_000 } },
  );
  const controller = new AbortController();
  const under = client.getState('job', { signal: controller.signal });
  await runtime.untilRequest('state');
  await wait(20);
  controller.abort();
  t.same(await under, { kind: 'away' });
  t.equal(runtime.requests.length, 1);
});

test('broken answers of state, cancel and cleanup are away or pending, and not repeated', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  for (const answer of [
    { status: 200, body: 'nonsense' },
    { status: 200, body: { thread_id: 'job', status: 'sleeping' } },
    { status: 400, body: { code: 'x', message: 'y' } },
  ]) {
    runtime.script.state = () => answer;
    t.same(await client.getState('job'), { kind: 'away' });
  }
  runtime.script.cancel = () => ({ status: 400 });
  t.equal(await client.cancel('job'), 'away');
  for (const answer of [
    { status: 404, body: 'no such page' },
    { status: 404, body: { code: 'not_found', message: 'no such route' } },
    { status: 404, body: '{"code":"thread_not_found"', cutBody: true },
    { status: 200, body: {} },
  ]) {
    runtime.script.cleanup = () => answer;
    t.equal(await client.cleanup('job'), 'pending');
  }
  t.equal(runtime.requests.length, 8);
});

test('a state of several megabytes is read whole, one over 64 MiB is not', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  const content = ['x'.repeat(5 * 1024 * 1024)];
  const state = { thread_id: 'job', status: 'completed', generated_files: { '/big.md': { content } } };
  runtime.script.state = () => ({ status: 200, body: state });
  t.match(await client.getState('job'), { kind: 'state', state });
  runtime.script.state = () => ({ status: 200, body: Buffer.alloc(65 * 1024 * 1024, 0x20) });
  t.same(await client.getState('job'), { kind: 'away' });
});

test('each call has a span, and hands the caller’s trace on', async (t) => {
  const { client, runtime, spans } = await createRuntimeClientFixture(t.teardown);
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  await client.invoke(jobOf('job'), { traceparent: `00-${traceId}-00f067aa0ba902b7-01` });
  const [span] = spans.getFinishedSpans();
  t.equal(span?.name, 'deepagents_runtime.invoke');
  t.equal(span?.attributes['http.response.status_code'], 200);
  t.equal(span?.parentSpanContext?.spanId, '00f067aa0ba902b7');
  t.equal(runtime.requests[0]?.headers.traceparent, `00-${traceId}-${span?.spanContext().spanId}-01`);
});

test('calls one after another share a connection, and leave nothing on it', async (t) => {
  const warnings: Error[] = [];
  const warned = (warning: Error): void => void warnings.push(warning);
  process.on('warning', warned);
  t.teardown(() => process.off('warning', warned));
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  for (let index = 0; index < 15; index++) await client.invoke(jobOf(`job-${index}`));
  await wait(1);
  t.same(warnings, []);
  t.equal(runtime.connections, 1);
});

test('stopping ends what is under way', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {
    invoke: () => 'hang',
    state: down,
  });
  const invoke = client.invoke(jobOf('job'));
  const state = client.getState('job');
  await Promise.all([runtime.untilRequest('invoke'), runtime.untilRequest('state')]);
  client.stop();
  t.match(await invoke, { kind: 'unknown', reason: 'aborted' });
  t.same(await state, { kind: 'away' });
  t.match(await client.invoke(jobOf('job')), { kind: 'unknown', reason: 'aborted' });
});

function down(): ScriptedAnswer {
  return { status: 503, body: { code: 'not_ready', message: 'not ready' } };
}
