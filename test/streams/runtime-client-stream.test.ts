import { once } from 'node:events';
import { test } from 'tap';
import type { WebSocket } from 'ws';
import type { Metrics } from '../../src/telemetry/metrics.js';
import { countOf, createRuntimeClientFixture, jobOf } from '../support/runtime-client-fixture.js';
import { until } from '../support/until.js';

const fresh = { after: null, epoch: null };
/** How many streams have ended their handshake so; it is counted behind the events of the socket. */
const streams = (metrics: Metrics, status: string) =>
  countOf(
    metrics,
    `ide_orchestrator_deepagents_runtime_requests_total{endpoint="stream",status="${status}"}`,
  );

test('a stream opens at a position, with the caller’s trace, and without compression', async (t) => {
  const { client, runtime, metrics, spans } = await createRuntimeClientFixture(t.teardown);
  await client.invoke(jobOf('job'));
  const thread = runtime.threads.get('job');
  thread?.push('on_llm_stream', { content: 'a' });
  thread?.push('on_llm_stream', { content: 'b' });
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;
  const socket = client.streamWebSocket({ threadId: 'job', after: 1, epoch: 1, traceparent });
  const received = framesOf(socket);
  await once(socket, 'open');
  thread?.end();
  const [code] = await once(socket, 'close');
  t.equal(code, 1000);
  t.match(received, [{ event_type: 'on_open' }, { seq: 2 }, { seq: 3, event_type: 'end' }]);
  const [request] = runtime.requestsOf('stream');
  t.equal(request?.url, '/deepagents-runtime/stream/job?after=1&epoch=1');
  t.equal(request?.headers['sec-websocket-extensions'], undefined);
  const spanOf = () => spans.getFinishedSpans().find(({ name }) => name === 'deepagents_runtime.stream');
  await until(() => spanOf() !== undefined);
  const span = spanOf();
  t.equal(span?.spanContext().traceId, traceId);
  t.equal(request?.headers.traceparent, `00-${traceId}-${span?.spanContext().spanId}-01`);
  t.equal(await streams(metrics, '101'), 1);
});

test('a refused upgrade is counted with its status, whether or not the reader handles the answer itself', async (t) => {
  const { client, runtime, metrics } = await createRuntimeClientFixture(t.teardown);
  const open = () => client.streamWebSocket({ threadId: 'none', ...fresh });
  t.match(await errorOf(open()), { message: 'Unexpected server response: 404' });
  runtime.script.upgrade = () => ({ status: 503 });
  const socket = open();
  const [request, response] = await once(socket, 'unexpected-response');
  t.equal(response.statusCode, 503);
  request.destroy();
  socket.terminate();
  await until(async () => (await streams(metrics, '503')) === 1);
  t.equal(await streams(metrics, '404'), 1);
  t.equal(await streams(metrics, '503'), 1);
});

test('a handshake that hangs, is cut, finds nobody or is given up ends by itself, and is counted as what it was', async (t) => {
  const { client, runtime, metrics, times } = await createRuntimeClientFixture(t.teardown);
  const open = () => client.streamWebSocket({ threadId: 'job', ...fresh });
  runtime.script.upgrade = () => 'hang';
  times.handshakeTimeoutMs = 200;
  t.match(await errorOf(open()), { message: 'Opening handshake has timed out' });
  times.handshakeTimeoutMs = 30_000;
  const givenUp = open();
  await runtime.untilRequest('stream', 2);
  const end = errorOf(givenUp);
  givenUp.terminate();
  await end;
  runtime.script.upgrade = () => 'cut';
  await errorOf(open());
  await runtime.goAway();
  await errorOf(open());
  for (const status of ['timeout', 'aborted', 'reset', 'unreachable']) {
    await until(async () => (await streams(metrics, status)) === 1);
    t.equal(await streams(metrics, status), 1, status);
  }
});

test('failed handshakes do not open the circuit', async (t) => {
  const { client, runtime, metrics } = await createRuntimeClientFixture(t.teardown);
  await client.invoke(jobOf('job'));
  runtime.script.upgrade = () => ({ status: 503 });
  for (let index = 0; index < 6; index++)
    await errorOf(client.streamWebSocket({ threadId: 'job', ...fresh }));
  await until(async () => (await streams(metrics, '503')) === 6);
  t.equal(client.circuit.state(), 'closed');
});

test('a frame up to the limit arrives, one byte more is an error that says so', async (t) => {
  const frameBytes = 4_096;
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {}, { times: { frameBytes } });
  await client.invoke(jobOf('job'));
  const socket = client.streamWebSocket({ threadId: 'job', ...fresh });
  const received = lengthsOf(socket);
  // `on_open`
  await once(socket, 'message');
  runtime.threads.get('job')?.sendRaw('x'.repeat(frameBytes));
  await once(socket, 'message');
  t.equal(received.at(-1), frameBytes);
  const error = once(socket, 'error');
  runtime.threads.get('job')?.sendRaw('x'.repeat(frameBytes + 1));
  t.match((await error)[0], { code: 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' });
});

test('text that is no UTF-8 reaches the reader instead of closing the stream', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  await client.invoke(jobOf('job'));
  const socket = client.streamWebSocket({ threadId: 'job', ...fresh });
  const received = lengthsOf(socket);
  await once(socket, 'open');
  runtime.threads.get('job')?.sendRaw(Buffer.from([0x7b, 0xff, 0xfe, 0x7d]));
  runtime.threads.get('job')?.end();
  const [code] = await once(socket, 'close');
  t.equal(code, 1000);
  t.equal(received[1], 4);
});

function framesOf(socket: WebSocket): unknown[] {
  const frames: unknown[] = [];
  socket.on('message', (data) => frames.push(JSON.parse(String(data))));
  return frames;
}

function lengthsOf(socket: WebSocket): number[] {
  const lengths: number[] = [];
  socket.on('message', (data: Buffer) => lengths.push(data.length));
  return lengths;
}

async function errorOf(socket: WebSocket): Promise<Error> {
  const [error] = (await once(socket, 'error')) as [Error];
  return error;
}
