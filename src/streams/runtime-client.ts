import { setTimeout as wait } from 'node:timers/promises';
import {
  type InvokeRequest,
  invokeResponse,
  isStorableText,
  type RuntimeState,
  runtimeProblem,
  runtimeState,
} from '@ide-orchestrator/protocol';
import { SpanKind, SpanStatusCode, type Tracer } from '@opentelemetry/api';
import type { WebSocket } from 'ws';
import type { Config } from '../config.js';
import type { Logger } from '../telemetry/logger.js';
import { circuitStateValues, type Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent, traceparentOf, withSpan } from '../telemetry/tracing.js';
import { type BackOffOptions, backOffDelayMs } from './back-off.js';
import { createRuntimeCircuit, type Health, type RuntimeCircuit } from './runtime-circuit.js';
import {
  createExchanger,
  type Exchange,
  type ExchangeRequest,
  isAwayStatus,
  isFromRuntime,
} from './runtime-exchange.js';
import { openRuntimeStream, type StreamRequest } from './runtime-handshake.js';
import { createRuntimeReach } from './runtime-reach.js';

/** `refused` is certain: no run was started by this call. `unknown`: it may have been; repeat with the same `job_id`. */
type InvokeResult =
  | { kind: 'started'; threadId: string }
  /** The job was cleaned up: it will never run again. */
  | { kind: 'gone' }
  /** The request itself is refused, and would be again. */
  | { kind: 'rejected'; status: number; message: string }
  | {
      kind: 'refused';
      reason: 'unreachable' | 'circuit_open' | 'overloaded' | 'status';
      status: number | null;
      retryAfterSeconds: number | null;
    }
  | { kind: 'unknown'; reason: 'timeout' | 'reset' | 'broken' | 'aborted' };

/** `away`: nothing was learned of the run. */
export type StateResult = { kind: 'state'; state: RuntimeState } | { kind: 'not_found' } | { kind: 'away' };
type CancelResult = 'accepted' | 'not_found' | 'away';
/** `confirmed` only by 204, or a 404 that says `thread_not_found`. */
type CleanupResult = 'confirmed' | 'pending';

interface CallOptions {
  /** Cancels the request on the wire. */
  signal?: AbortSignal | undefined;
  /** The trace to continue; default: the active context. */
  traceparent?: string | null | undefined;
}

export interface DeepAgentsRuntimeClient {
  /** Starts the run. Made once: the actor repeats it. A Buffer is sent as it is (the stored input). */
  invoke(request: InvokeRequest | Buffer, options?: CallOptions): Promise<InvokeResult>;
  /** Opens the stream and only that; the caller reads, pings, closes. Ask `circuit.retryAfterSeconds()` before. */
  streamWebSocket(request: StreamRequest): WebSocket;
  getState(threadId: string, options?: CallOptions): Promise<StateResult>;
  cancel(threadId: string, options?: CallOptions): Promise<CancelResult>;
  cleanup(threadId: string, options?: CallOptions): Promise<CleanupResult>;
  /** Waits so long (ms) before a call is repeated, or until the circuit closes, where that is sooner. */
  pause(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** Guards every call but `cleanup`. */
  readonly circuit: Pick<RuntimeCircuit, 'state' | 'retryAfterSeconds'>;
  /** Guards `cleanup`: a thousand refused clean-ups must not keep people from starting runs. */
  readonly outboxCircuit: Pick<RuntimeCircuit, 'state' | 'retryAfterSeconds'>;
  /** For how long (ms) this replica has not reached the runtime by any call or stream; 0 while its last try did. */
  silentMs(): number;
  /** Aborts what is under way (`unknown`, `away`, `pending`) and closes idle connections. Streams are the callers'. */
  stop(): void;
}

export interface RuntimeClientDeps {
  /** Base URL of the runtime, without `/deepagents-runtime`. */
  url: string;
  config: Pick<
    Config['runtime'],
    'invokeDeadlineMs' | 'callDeadlineMs' | 'handshakeTimeoutMs' | 'frameBytes'
  >;
  metrics: Pick<
    Metrics,
    'deepagentsRuntimeRequestsTotal' | 'deepagentsRuntimeRequestDurationSeconds' | 'circuitState'
  >;
  tracer: Tracer;
  log: Pick<Logger, 'info' | 'warn' | 'error'>;
  random: () => number;
  /** Monotonic milliseconds; the process's clock. */
  now?: () => number;
  /** For tests of the circuit; 30 s. */
  circuitOpenMs?: number;
  /** For tests of the repetition. */
  retry?: { count: number; baseMs: number; maxMs: number };
}

type Endpoint = 'invoke' | 'state' | 'cancel' | 'cleanup' | 'ready';
type Attempted = Exchange | { kind: 'circuit_open' } | { kind: 'overloaded' };

const stateBytes = 64 * 1024 * 1024;
const answerBytes = 64 * 1024;
/** Of the runtime's own words, in logs and in the proposal's error. */
const messageCharacters = 500;

/** The calls to the runtime (protocol.md §1), each with deadline, circuit, span and metrics. Results are values: nothing is thrown. */
export function createDeepAgentsRuntimeClient(deps: RuntimeClientDeps): DeepAgentsRuntimeClient {
  const { config, metrics, tracer, log } = deps;
  const origin = new URL(deps.url);
  const rootPath = origin.pathname.replace(/\/+$/, '');
  const basePath = `${rootPath}/deepagents-runtime`;
  const exchanger = createExchanger({ origin, connectDeadlineMs: config.handshakeTimeoutMs });
  const reach = createRuntimeReach(deps.now ?? (() => performance.now()));
  let stopped = false;
  const retry = deps.retry ?? { count: 2, baseMs: 100, maxMs: 1_000 };
  const backOff: BackOffOptions = { baseMs: retry.baseMs, maxMs: retry.maxMs, random: deps.random };
  const circuitOf = (name: string, longestCallMs: number): RuntimeCircuit =>
    createRuntimeCircuit({
      name,
      openMs: deps.circuitOpenMs ?? 30_000,
      longestCallMs,
      probe: askReady,
      concurrent: 100,
      waiting: 5_000,
      maxWaitMs: config.callDeadlineMs,
      onState(state) {
        metrics.circuitState.set({ circuit: name }, circuitStateValues[state]);
        if (state === 'open') log.warn({ circuit: name }, 'circuit opened');
        else log.info({ circuit: name, state }, 'circuit state');
      },
    });
  const longestCallMs = Math.max(config.invokeDeadlineMs, config.callDeadlineMs, config.handshakeTimeoutMs);
  const exchangeOnce = (endpoint: Endpoint, request: ExchangeRequest, traceparent?: string | null) =>
    withSpan(
      tracer,
      `deepagents_runtime.${endpoint}`,
      {
        kind: SpanKind.CLIENT,
        attributes: { 'http.request.method': request.method, 'server.address': origin.host },
        ...(traceparent ? { parent: contextFromTraceparent(traceparent) } : {}),
      },
      async (span, spanContext) => {
        const onward = traceparentOf(spanContext);
        const headers = { ...request.headers, ...(onward === null ? {} : { traceparent: onward }) };
        const ended = metrics.deepagentsRuntimeRequestDurationSeconds.startTimer({ endpoint });
        const exchange = await exchanger.send({ ...request, headers });
        ended();
        metrics.deepagentsRuntimeRequestsTotal.inc({ endpoint, status: statusLabelOf(exchange) });
        if (exchange.kind === 'answered') span.setAttribute('http.response.status_code', exchange.status);
        const health = healthOf(exchange);
        if (exchange.kind === 'answered' ? isFromRuntime(exchange.status) : health === 'good') reach.heard();
        else if (health === 'bad') reach.missed();
        if (health === 'bad')
          span.setStatus({ code: SpanStatusCode.ERROR, message: statusLabelOf(exchange) });
        return { value: exchange, health };
      },
    );

  /** The probe of a half-open circuit: it concerns no run. */
  const askReady = async (): Promise<Health> => {
    const { callDeadlineMs: deadlineMs } = config;
    const request = { method: 'GET', path: `${rootPath}/ready`, headers: {}, deadlineMs } as const;
    return (await exchangeOnce('ready', { ...request, maxBytes: answerBytes }, null)).health;
  };
  const circuit = circuitOf('runtime', longestCallMs);
  const outboxCircuit = circuitOf('outbox', config.callDeadlineMs);

  const attempt = async (
    endpoint: Endpoint,
    request: Omit<ExchangeRequest, 'headers' | 'signal'>,
    options: CallOptions,
    threadId: string | null = null,
  ): Promise<Attempted> => {
    const { signal } = options;
    const headers = { accept: 'application/json', 'content-type': 'application/json' };
    const guard = endpoint === 'cleanup' ? outboxCircuit : circuit;
    const guarded = await guard.run(async () => {
      const tried = await exchangeOnce(endpoint, { ...request, headers, signal }, options.traceparent);
      // A connection that cannot be made is nothing of the run's.
      return { ...tried, about: tried.value.kind === 'unreachable' ? null : threadId };
    });
    if (guarded.kind === 'done') return guarded.value;
    const kind = guarded.kind === 'open' ? 'circuit_open' : 'overloaded';
    metrics.deepagentsRuntimeRequestsTotal.inc({ endpoint, status: kind });
    return { kind };
  };

  /** For what can be said twice: repeats while the runtime seems away, not against an open circuit. */
  const repeated = async (
    endpoint: Endpoint,
    method: ExchangeRequest['method'],
    threadId: string,
    options: CallOptions,
  ): Promise<Attempted> => {
    const path = `${basePath}/${endpoint}/${encodeURIComponent(threadId.toWellFormed())}`;
    const maxBytes = endpoint === 'state' ? stateBytes : answerBytes;
    const request = { method, path, deadlineMs: config.callDeadlineMs, maxBytes };
    for (let repetition = 0; ; repetition++) {
      const attempted = await attempt(endpoint, request, options, threadId);
      const away =
        attempted.kind !== 'circuit_open' && attempted.kind !== 'overloaded' && healthOf(attempted) === 'bad';
      if (!away || repetition >= retry.count) return attempted;
      await wait(backOffDelayMs(repetition, backOff), undefined, { signal: options.signal }).catch(
        () => undefined,
      );
      if (stopped || options.signal?.aborted) return { kind: 'aborted' };
    }
  };

  return {
    async invoke(request, options = {}) {
      const body = Buffer.isBuffer(request) ? request : JSON.stringify(request);
      const { invokeDeadlineMs: deadlineMs } = config;
      const path = `${basePath}/invoke`;
      const result = invokeResultOf(
        await attempt('invoke', { method: 'POST', path, body, deadlineMs, maxBytes: answerBytes }, options),
      );
      if (result.kind === 'refused' && result.reason === 'circuit_open') {
        return { ...result, retryAfterSeconds: circuit.retryAfterSeconds() ?? 1 };
      }
      return result;
    },
    streamWebSocket: (request) =>
      openRuntimeStream(request, { origin, basePath, config, circuit, reach, metrics, tracer }),
    async getState(threadId, options = {}) {
      const attempted = await repeated('state', 'GET', threadId, options);
      if (attempted.kind !== 'answered') return { kind: 'away' };
      if (attempted.status === 404) return { kind: 'not_found' };
      const state = attempted.status === 200 ? runtimeState.safeParse(jsonOf(attempted.body)) : undefined;
      return state?.success ? { kind: 'state', state: state.data } : { kind: 'away' };
    },
    async cancel(threadId, options = {}) {
      const attempted = await repeated('cancel', 'POST', threadId, options);
      if (attempted.kind !== 'answered') return 'away';
      if (attempted.status === 404) return 'not_found';
      return attempted.status === 202 || attempted.status === 200 ? 'accepted' : 'away';
    },
    async cleanup(threadId, options = {}) {
      const attempted = await repeated('cleanup', 'DELETE', threadId, options);
      if (attempted.kind !== 'answered') return 'pending';
      if (attempted.status === 204) return 'confirmed';
      const problem = runtimeProblem.partial({ message: true }).safeParse(jsonOf(attempted.body));
      const nothingThere = attempted.status === 404 && problem.data?.code === 'thread_not_found';
      return nothingThere ? 'confirmed' : 'pending';
    },
    pause: circuit.pause,
    circuit,
    outboxCircuit,
    silentMs: reach.silentMs,
    stop() {
      stopped = true;
      exchanger.stop();
      circuit.stop();
      outboxCircuit.stop();
    },
  };
}

function invokeResultOf(attempted: Attempted): InvokeResult {
  switch (attempted.kind) {
    case 'circuit_open':
    case 'overloaded':
    case 'unreachable':
      return { kind: 'refused', reason: attempted.kind, status: null, retryAfterSeconds: null };
    case 'aborted':
      return { kind: 'unknown', reason: 'aborted' };
    case 'oversized':
      return { kind: 'unknown', reason: 'broken' };
    case 'interrupted':
      return { kind: 'unknown', reason: attempted.reason };
    case 'answered':
      return answeredInvokeOf(attempted);
  }
}

function answeredInvokeOf({ status, headers, body }: Exchange & { kind: 'answered' }): InvokeResult {
  if (status === 200) {
    const answer = invokeResponse.safeParse(jsonOf(body));
    // The run may well have started: a broken answer is no refusal.
    if (!answer.success || !isStorableText(answer.data.thread_id))
      return { kind: 'unknown', reason: 'broken' };
    return { kind: 'started', threadId: answer.data.thread_id };
  }
  if (status === 410) return { kind: 'gone' };
  if (status >= 400 && status < 500 && !isAwayStatus(status)) {
    return { kind: 'rejected', status, message: messageOf(status, body) };
  }
  return { kind: 'refused', reason: 'status', status, retryAfterSeconds: secondsOf(headers['retry-after']) };
}

function messageOf(status: number, body: Buffer): string {
  const problem = runtimeProblem.safeParse(jsonOf(body));
  const words = problem.success ? problem.data.message : `The runtime answered ${status}`;
  return words.slice(0, messageCharacters).toWellFormed();
}

/** Whole seconds of `Retry-After`; a date is not worth reading between two services. */
function secondsOf(header: string | undefined): number | null {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) : null;
}

/** An unreadable answer is not bad health: one run's broken state must not close the door for all the others. */
function healthOf(exchange: Exchange): Health {
  switch (exchange.kind) {
    case 'answered':
      return isAwayStatus(exchange.status) ? 'bad' : 'good';
    case 'oversized':
      return 'good';
    case 'aborted':
      return 'undecided';
    default:
      return 'bad';
  }
}

function statusLabelOf(exchange: Exchange): string {
  if (exchange.kind === 'answered') return String(exchange.status);
  return exchange.kind === 'interrupted' ? exchange.reason : exchange.kind;
}

function jsonOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}
