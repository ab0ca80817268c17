import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { test } from 'tap';
import {
  contextFromTraceparent,
  createTracing,
  traceIdOf,
  traceparentOf,
  withSpan,
} from '../src/telemetry/tracing.js';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;

function tracingOf() {
  const spans = new InMemorySpanExporter();
  const processors = [new SimpleSpanProcessor(spans)];
  return { spans, ...createTracing({ serviceName: 'ide', otlpEndpoint: null, processors }) };
}

test('spans nest across awaits, and continue the caller’s trace', async (t) => {
  const { spans, tracer } = tracingOf();
  const parent = contextFromTraceparent(traceparent);
  const result = await withSpan(tracer, 'outer', { parent, attributes: { route: '/x' } }, async (outer) => {
    await null;
    t.equal(trace.getSpan(context.active()), outer);
    return withSpan(tracer, 'inner', { kind: SpanKind.CLIENT }, async (_, inner) => traceIdOf(inner));
  });
  t.equal(result, traceId);
  const [inner, outer] = spans.getFinishedSpans();
  t.equal(inner?.parentSpanContext?.spanId, outer?.spanContext().spanId);
  t.equal(outer?.parentSpanContext?.spanId, '00f067aa0ba902b7');
  t.equal(outer?.resource.attributes['service.name'], 'ide');
  t.same(outer?.attributes, { route: '/x' });
});

test('what is thrown is noted in the span and thrown on', async (t) => {
  const { spans, tracer } = tracingOf();
  const work = withSpan(tracer, 'broken', {}, () => Promise.reject(new Error('no')));
  await t.rejects(work, { message: 'no' });
  const [span] = spans.getFinishedSpans();
  t.same(span?.status, { code: SpanStatusCode.ERROR, message: 'no' });
  t.equal(span?.events[0]?.name, 'exception');
});

test('a traceparent is read and written as W3C says, and a broken one is no parent', async (t) => {
  t.equal(traceparentOf(contextFromTraceparent(traceparent)), traceparent);
  t.equal(
    traceparentOf(contextFromTraceparent(traceparent.replace(/01$/, '00'))),
    traceparent.replace(/01$/, '00'),
  );
  t.equal(
    traceIdOf(contextFromTraceparent(`cc-${traceId}-00f067aa0ba902b7-01-more`)),
    traceId,
    'a later version',
  );
  for (const broken of [
    undefined,
    null,
    '',
    'nonsense',
    traceparent.toUpperCase(),
    `ff-${traceId}-00f067aa0ba902b7-01`,
    `${traceparent}-more`,
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `00-${traceId}-${'0'.repeat(16)}-01`,
  ]) {
    t.equal(contextFromTraceparent(broken), ROOT_CONTEXT, String(broken));
  }
  t.equal(traceparentOf(ROOT_CONTEXT), null);
  t.equal(traceIdOf(ROOT_CONTEXT), null);
});

test('without a collector spans have ids all the same', async (t) => {
  const { tracer, stop } = createTracing({ serviceName: 'ide', otlpEndpoint: null });
  const id = await withSpan(tracer, 'x', { parent: ROOT_CONTEXT }, async (_, inner) => traceIdOf(inner));
  t.match(id, /^[0-9a-f]{32}$/);
  await stop();
});

test('a collector gets the spans at the stop, and one that is away holds nothing up', async (t) => {
  const received: { url: string | undefined; type: string | undefined }[] = [];
  const collector = createServer((request, response) => {
    received.push({ url: request.url, type: request.headers['content-type'] });
    request.resume().once('end', () => response.end());
  });
  collector.listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const { port } = collector.address() as AddressInfo;
  const tracing = createTracing({ serviceName: 'ide', otlpEndpoint: `http://127.0.0.1:${port}/` });
  await withSpan(tracing.tracer, 'x', {}, async () => undefined);
  await tracing.stop();
  t.same(received, [{ url: '/v1/traces', type: 'application/x-protobuf' }]);
  collector.close();
  collector.closeAllConnections();
  await once(collector, 'close');

  const lost = createTracing({ serviceName: 'ide', otlpEndpoint: 'http://127.0.0.1:1' });
  await withSpan(lost.tracer, 'x', {}, async () => undefined);
  await t.resolves(lost.stop());
});
