import { type Context, context, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import { WebSocket } from 'ws';
import type { Config } from '../config.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent, traceparentOf } from '../telemetry/tracing.js';
import type { InPlaceReads } from './read-in-place.js';
import type { RuntimeCircuit } from './runtime-circuit.js';
import { isAwayStatus, isFromRuntime } from './runtime-exchange.js';
import type { RuntimeReach } from './runtime-reach.js';

export interface StreamRequest {
  threadId: string;
  /** The last number that is here; null = from the start of the log. */
  after: number | null;
  /** The log that `after` belongs to; null = the present one. */
  epoch: number | null;
  traceparent?: string | null | undefined;
  /** Who reads the frames; without it, or over TLS, `ws` does. */
  reads?: InPlaceReads;
}

interface HandshakeDeps {
  origin: URL;
  basePath: string;
  config: Pick<Config['runtime'], 'handshakeTimeoutMs' | 'frameBytes'>;
  circuit: Pick<RuntimeCircuit, 'heard'>;
  reach: Pick<RuntimeReach, 'heard' | 'missed'>;
  metrics: Pick<Metrics, 'deepagentsRuntimeRequestsTotal' | 'deepagentsRuntimeRequestDurationSeconds'>;
  tracer: Tracer;
}

/**
 * Opens a run's stream. The handshake has a span, is counted (`endpoint="stream"`, status 101 or what came instead) and, where it
 * succeeds, told to the circuit; the circuit does not hold it back.
 *
 * UTF-8 is not checked here: ws would close the socket with 1007, and after each reconnection again, while the contract wants
 * one unreadable frame dropped with a warning. Whoever decodes the frame has to check (`isUtf8` of node:buffer).
 * A message over `frameBytes` is the error `WS_ERR_UNSUPPORTED_MESSAGE_LENGTH`.
 */
export function openRuntimeStream(request: StreamRequest, deps: HandshakeDeps): WebSocket {
  const parent = request.traceparent ? contextFromTraceparent(request.traceparent) : context.active();
  const span = deps.tracer.startSpan('deepagents_runtime.stream', { kind: SpanKind.CLIENT }, parent);
  const ended = deps.metrics.deepagentsRuntimeRequestDurationSeconds.startTimer({ endpoint: 'stream' });
  let refusedWith: (status: number) => void = () => undefined;
  const url = streamUrlOf(request, deps);
  const reads = url.protocol === 'ws:' ? request.reads : undefined;
  const socket = new WebSocket(url, {
    ...(reads && { createConnection: reads.createConnection }),
    // Heard here, not by `unexpected-response`: a listener to that takes the handling away from ws, and the reader may want it.
    finishRequest(upgrade) {
      upgrade.on('response', ({ statusCode }) => refusedWith(statusCode ?? 0));
      if (reads) upgrade.on('upgrade', (_response, _socket, head) => reads.upgraded(head));
      upgrade.end();
    },
    perMessageDeflate: false,
    maxPayload: deps.config.frameBytes,
    handshakeTimeout: deps.config.handshakeTimeoutMs,
    skipUTF8Validation: true,
    headers: headersOf(trace.setSpan(parent, span)),
  });
  void new Promise<string>((resolve) => {
    refusedWith = (status) => resolve(String(status));
    socket.once('open', () => resolve('101'));
    // Never taken off: an `error` without a listener would end the process.
    socket.on('error', (error) => resolve(handshakeFailureOf(error)));
  }).then((status) => {
    ended();
    deps.metrics.deepagentsRuntimeRequestsTotal.inc({ endpoint: 'stream', status });
    const good = isGood(status);
    if (isFromRuntime(Number(status))) deps.reach.heard();
    else if (status !== 'aborted') deps.reach.missed();
    if (!good && status !== 'aborted') span.setStatus({ code: SpanStatusCode.ERROR, message: status });
    span.end();
    // Streams are opened again by themselves, by every thread: their failures would open the circuit at once, and
    // keep people from starting runs long after the runtime is back.
    if (good) deps.circuit.heard();
  });
  return socket;
}

function handshakeFailureOf(error: Error): string {
  if (error.message === 'Opening handshake has timed out') return 'timeout';
  if (error.message === 'WebSocket was closed before the connection was established') return 'aborted';
  return 'code' in error && error.code === 'ECONNREFUSED' ? 'unreachable' : 'reset';
}

function isGood(status: string): boolean {
  const number = Number(status);
  return !Number.isNaN(number) && !isAwayStatus(number);
}

function streamUrlOf(request: StreamRequest, { origin, basePath }: HandshakeDeps): URL {
  const id = encodeURIComponent(request.threadId.toWellFormed());
  const url = new URL(`${basePath}/stream/${id}`, origin);
  url.protocol = origin.protocol === 'https:' ? 'wss:' : 'ws:';
  if (request.after !== null) url.searchParams.set('after', String(request.after));
  if (request.epoch !== null) url.searchParams.set('epoch', String(request.epoch));
  return url;
}

function headersOf(spanContext: Context): Record<string, string> {
  const traceparent = traceparentOf(spanContext);
  return traceparent === null ? {} : { traceparent };
}
