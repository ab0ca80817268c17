import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { test } from 'tap';
import { createLogger } from '../../src/telemetry/logger.js';
import { contextOfTraceparent, createTracing, traceparentOf } from '../../src/telemetry/tracing.js';
import { createTestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { briefScript, createScriptedRunner } from '../support/scripted-runner.js';
import { jobOf, startRuntime } from '../support/test-runtime.js';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const traceparent = `00-${traceId}-b7ad6b7169203331-01`;

test('The trace of the caller goes on through invoke and run, also after a restart', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const exporter = new InMemorySpanExporter();
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  t.teardown(() => provider.shutdown());
  const runner = createScriptedRunner(async (stage) => {
    if (stage.input.agent_definition.fail === true) throw new Error('no');
    return briefScript(stage);
  });
  const runtime = await startRuntime(database.url, runner, {}, provider.getTracer('test'));
  const invoke = (job: Record<string, unknown>, headers: Record<string, string> = { traceparent }) =>
    runtime.request('/deepagents-runtime/invoke', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(job),
    });
  await invoke(jobOf({ job_id: 'traced' }));
  await runtime.finished('traced');
  const span = (name: string) => exporter.getFinishedSpans().find((candidate) => candidate.name === name);
  await eventually('the run has its span', () => span('run') !== undefined);
  t.equal(span('invoke')?.spanContext().traceId, traceId);
  t.equal(span('invoke')?.parentSpanContext?.spanId, 'b7ad6b7169203331');
  t.equal(span('run')?.spanContext().traceId, traceId);
  t.equal(span('run')?.parentSpanContext?.spanId, span('invoke')?.spanContext().spanId);

  exporter.reset();
  await invoke(jobOf({ job_id: 'failing', agent_definition: { fail: true } }), {});
  await runtime.finished('failing');
  await invoke(jobOf({ job_id: 'bad\u0000' }));
  const failures = () => exporter.getFinishedSpans().filter(({ status }) => status.code === 2);
  await eventually('both have theirs', () => failures().length === 2);
  t.same(
    failures()
      .map(({ name, status }) => [name, status.message])
      .sort(),
    [
      ['invoke', 'validation_failed'],
      ['run', 'runtime_error'],
    ],
  );

  const event = { specversion: '1.0', id: '1', source: '/t', type: 'agent.execute', traceparent };
  const data = jobOf({ job_id: 'event' });
  await runtime.request('/', {
    method: 'POST',
    headers: { 'content-type': 'application/cloudevents+json' },
    body: JSON.stringify({ ...event, data }),
  });
  const [row] = await database.query<{ traceparent: string }>(
    "SELECT traceparent FROM runs WHERE thread_id = 'event'",
  );
  t.ok(row?.traceparent.startsWith(`00-${traceId}-`), 'an event names its trace too; the row keeps it');
  await runtime.stop();
});

test('Spans go out where an endpoint is configured, and only there', async (t) => {
  const paths: string[] = [];
  const collector = createServer((request, response) => {
    paths.push(request.url ?? '');
    request.resume();
    response.end();
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  t.teardown(() => collector.close());
  const { port } = collector.address() as AddressInfo;
  const tracing = await createTracing(`http://127.0.0.1:${port}/`);
  tracing.tracer.startSpan('run').end();
  await tracing.stop();
  t.same(paths, ['/v1/traces']);

  const silent = await createTracing(null);
  const span = silent.tracer.startSpan('run');
  t.equal(traceparentOf(span), null);
  await silent.stop();
});

test('A malformed traceparent begins a trace of its own', (t) => {
  const root = contextOfTraceparent(null);
  for (const text of ['', 'x', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `${traceparent}-more`])
    t.equal(contextOfTraceparent(text), root, text);
  t.not(contextOfTraceparent(traceparent), root);
  t.end();
});

test('Log lines are JSON with a level by name and an ISO time', (t) => {
  const lines: string[] = [];
  const logger = createLogger('info', { write: (line) => lines.push(line) });
  logger.child({ thread_id: 'a' }).info({ epoch: 1 }, 'run started');
  t.match(JSON.parse(lines[0] ?? ''), {
    level: 'info',
    time: /^\d{4}-.*Z$/,
    service: 'deepagents-runtime',
    thread_id: 'a',
    epoch: 1,
    msg: 'run started',
  });
  t.end();
});
