import type { InvokeRequest } from '@ide-orchestrator/protocol';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { pino } from 'pino';
import {
  createDeepAgentsRuntimeClient,
  type DeepAgentsRuntimeClient,
  type RuntimeClientDeps,
} from '../../src/streams/runtime-client.js';
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.js';
import { createTracing } from '../../src/telemetry/tracing.js';
import { createScriptedRuntime, type RuntimeScript, type ScriptedRuntime } from './scripted-runtime.js';

export interface RuntimeClientFixture {
  runtime: ScriptedRuntime;
  client: DeepAgentsRuntimeClient;
  metrics: Metrics;
  spans: InMemorySpanExporter;
  /** Deadlines of the calls from now on; those of the circuit stay as they were at first. */
  times: RuntimeClientDeps['config'];
}

/**
 * A client in front of a scripted runtime; `teardown` ends both. Its deadlines are longer than anything takes: who wants
 * one to pass makes it short.
 */
export async function createRuntimeClientFixture(
  teardown: (end: () => Promise<void>) => void,
  script: RuntimeScript = {},
  overrides: Partial<RuntimeClientDeps> & { times?: Partial<RuntimeClientDeps['config']> } = {},
): Promise<RuntimeClientFixture> {
  const runtime = await createScriptedRuntime(script);
  const metrics = createMetrics({ processMetrics: false });
  const spans = new InMemorySpanExporter();
  const processors = [new SimpleSpanProcessor(spans)];
  const tracing = createTracing({ serviceName: 'test', otlpEndpoint: null, processors });
  const { times: given, ...others } = overrides;
  const times = {
    invokeDeadlineMs: 30_000,
    callDeadlineMs: 30_000,
    handshakeTimeoutMs: 30_000,
    frameBytes: 16 * 1024 * 1024,
    ...given,
  };
  const client = createDeepAgentsRuntimeClient({
    url: runtime.url,
    config: times,
    metrics,
    tracer: tracing.tracer,
    log: pino({ level: 'silent' }),
    random: () => 0.5,
    circuitOpenMs: 30_000,
    retry: { count: 2, baseMs: 10, maxMs: 20 },
    ...others,
  });
  teardown(async () => {
    client.stop();
    await runtime.stop();
  });
  return { runtime, client, metrics, spans, times };
}

export function jobOf(id: string): InvokeRequest {
  return {
    trace_id: 'trace',
    job_id: id,
    agent_definition: {},
    input_payload: { messages: [{ role: 'user', content: 'Add web search' }] },
  };
}

/** The value of one series, 0 where it does not exist. */
export async function countOf(metrics: Metrics, series: string): Promise<number> {
  const line = (await metrics.render()).split('\n').find((each) => each.startsWith(`${series} `));
  return line === undefined ? 0 : Number(line.slice(series.length + 1));
}
