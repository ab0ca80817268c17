import {
  type Attributes,
  type Context,
  context,
  isSpanContextValid,
  ProxyTracerProvider,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider, type SpanProcessor } from '@opentelemetry/sdk-trace-node';
import { toError } from '../errors.js';

export interface Tracing {
  readonly tracer: Tracer;
  /** Exports what is waiting, at most 2 s. Never rejects. */
  stop(): Promise<void>;
}

const exportDeadlineMs = 2_000;

/**
 * Spans of this process. Without `otlpEndpoint` (base URL of an OTLP/HTTP collector) they have ids, so that traces can be
 * named and continued, and go nowhere. Registers the process-wide context, once.
 * `processors` come beside the exporter.
 */
export function createTracing(options: {
  serviceName: string;
  otlpEndpoint: string | null;
  processors?: readonly SpanProcessor[];
}): Tracing {
  const spanProcessors = [...(options.processors ?? [])];
  if (options.otlpEndpoint !== null) {
    const url = `${options.otlpEndpoint.replace(/\/+$/, '')}/v1/traces`;
    spanProcessors.push(
      new BatchSpanProcessor(new OTLPTraceExporter({ url, timeoutMillis: exportDeadlineMs })),
    );
  }
  const resource = resourceFromAttributes({ 'service.name': options.serviceName });
  const provider = new NodeTracerProvider({ resource, spanProcessors });
  // The tracer goes where it is needed by hand. Slonik would take a global one for a dozen spans of each statement, polls
  // included, so that place is taken by one that makes none.
  trace.setGlobalTracerProvider(new ProxyTracerProvider());
  // Propagation is by hand (`traceparentOf`): only the two edges that speak HTTP do it.
  provider.register({ propagator: null });
  return {
    tracer: provider.getTracer('ide-orchestrator'),
    async stop() {
      // A collector that is away must not hold up the stop of the process.
      await provider.shutdown().catch(() => undefined);
    },
  };
}

/**
 * Runs `work` in a span under `parent` (default: the active context). What it throws is noted in the span and thrown on.
 * Never used on the path of a frame.
 */
export async function withSpan<Result>(
  tracer: Tracer,
  name: string,
  options: { attributes?: Attributes; parent?: Context; kind?: SpanKind },
  work: (span: Span, spanContext: Context) => Promise<Result>,
): Promise<Result> {
  const parent = options.parent ?? context.active();
  const { attributes = {}, kind } = options;
  const span = tracer.startSpan(name, { attributes, ...(kind === undefined ? {} : { kind }) }, parent);
  const spanContext = trace.setSpan(parent, span);
  try {
    return await context.with(spanContext, () => work(span, spanContext));
  } catch (thrown) {
    const error = toError(thrown);
    span.recordException(error);
    span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
    throw thrown;
  } finally {
    span.end();
  }
}

/**
 * Notes a call that has just ended, under the active trace. Where there is none (a sweep, a poll) nothing is noted, so
 * that what runs twice a second on each replica is not exported for ever.
 */
export function recordSpan(tracer: Tracer, name: string, seconds: number, error: Error | null): void {
  const parent = context.active();
  if (traceIdOf(parent) === null) return;
  const endTime = Date.now();
  const span = tracer.startSpan(
    name,
    { kind: SpanKind.CLIENT, startTime: endTime - seconds * 1_000 },
    parent,
  );
  if (error !== null) span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
  span.end(endTime);
}

const traceparentPattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** The caller's trace (W3C Trace Context) as a context to start spans under; the root where the header is missing or broken. */
export function contextFromTraceparent(header: string | undefined | null): Context {
  const [, version = 'ff', traceId = '', spanId = '', flags = '00', rest] =
    traceparentPattern.exec(header?.trim() ?? '') ?? [];
  const spanContext = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true };
  // Version 00 has exactly four fields; later ones may have more, ff is none.
  if (version === 'ff' || (version === '00' && rest !== undefined) || !isSpanContextValid(spanContext)) {
    return ROOT_CONTEXT;
  }
  return trace.setSpanContext(ROOT_CONTEXT, spanContext);
}

/** The header that hands this context's trace on, or null where there is no trace. */
export function traceparentOf(source: Context): string | null {
  const span = trace.getSpanContext(source);
  if (span === undefined || !isSpanContextValid(span)) return null;
  return `00-${span.traceId}-${span.spanId}-${span.traceFlags.toString(16).padStart(2, '0')}`;
}

/** 32 hex digits, or null where there is no trace. */
export function traceIdOf(source: Context): string | null {
  const span = trace.getSpanContext(source);
  return span !== undefined && isSpanContextValid(span) ? span.traceId : null;
}
