import { limits } from '@ide-orchestrator/protocol';
import { SpanKind, SpanStatusCode, type Tracer } from '@opentelemetry/api';
import type { RunStore } from '../db/runs-store.js';
import { Problem, problemOf } from '../errors.js';
import type { RunCleanup } from '../runs/run-cleanup.js';
import { type RunIntake, reached } from '../runs/run-intake.js';
import type { RunStreams } from '../runs/run-streams.js';
import type { RunSupervisor } from '../runs/run-supervisor.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextOfTraceparent, traceparentOf } from '../telemetry/tracing.js';
import { createExchange, type Exchange } from './exchange.js';
import { decodeInvoke } from './invoke-body.js';
import { createStallWatch } from './stall-watch.js';
import {
  createStreamReader,
  type Position,
  readerBudgetBytes,
  type StreamData,
  type StreamReader,
} from './stream-socket.js';
import {
  App,
  type HttpRequest,
  type HttpResponse,
  type us_listen_socket,
  us_listen_socket_close,
  type us_socket_context_t,
  us_socket_local_port,
} from './uws.js';

export interface RuntimeServer {
  /** Takes connections from now on. @throws where the address is taken. */
  listen(host: string, port: number): Promise<number>;
  /** Takes no new connections; readiness says so to those that are there. */
  retire(): void;
  /** Sends readers away with 1012 and closes everything. */
  close(): Promise<void>;
}

export interface RuntimeServerDeps {
  store: RunStore;
  intake: RunIntake;
  cleanup: RunCleanup;
  streams: RunStreams;
  supervisor: RunSupervisor;
  metrics: Metrics;
  tracer: Tracer;
  logger: Logger;
  /** Monotonic milliseconds. */
  now: () => number;
}

/** A job holds a whole draft: up to 500 files. */
const bodyBytes = 32 * 1024 * 1024;

/** The HTTP and WebSocket face of the runtime. */
export function createRuntimeServer(deps: RuntimeServerDeps, readerStallMs: number): RuntimeServer {
  const { store, intake, cleanup, streams, supervisor, metrics, tracer, logger } = deps;
  const readers = new Set<StreamReader>();
  const stalls = createStallWatch({ now: deps.now }, readerStallMs);
  let listening: us_listen_socket | null = null;
  let retired = false;

  /** Commits the wish before it is acted on: it holds over a restart. */
  const cancel = async (threadId: string): Promise<void> => {
    const status = await reached(() => store.requestCancel(threadId));
    if (status === null || cleanup.isGoing(threadId)) throw new Problem('thread_not_found');
    supervisor.get(threadId)?.cancel();
  };

  /** Every handler's frame: no throw leaves it (that would end the process), no answer tells internals. */
  const route =
    (name: string, handle: (exchange: Exchange) => Promise<void>) =>
    (res: HttpResponse, req: HttpRequest, context?: us_socket_context_t): void => {
      const exchange = createExchange(res, req, {
        context,
        onReply: (method, status) => metrics.requestAnswered(method, name, status),
      });
      if (exchange.isRefused) return;
      handle(exchange).catch((thrown: unknown) => {
        const problem = problemOf(thrown);
        if (!(thrown instanceof Problem) || problem.status >= 500)
          logger.error({ err: thrown, route: name }, 'request failed');
        exchange.replyProblem(problem);
      });
    };
  const threadOf = ({ parameter }: Exchange): string => {
    if (parameter === null) throw new Problem('thread_not_found');
    return parameter;
  };

  const invoke = route('/deepagents-runtime/invoke', async (exchange) => {
    const body = await exchange.body(bodyBytes);
    const { request, traceparent } = decodeInvoke(exchange.headers, body);
    if (retired) throw new Problem('not_ready', 'The runtime stops');
    const span = tracer.startSpan(
      'invoke',
      { kind: SpanKind.SERVER, attributes: { thread_id: request.job_id } },
      contextOfTraceparent(traceparent),
    );
    try {
      const { threadId } = await intake.invoke(request, traceparentOf(span) ?? traceparent);
      exchange.replyJson(200, { thread_id: threadId, status: 'started' });
    } catch (thrown) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: problemOf(thrown).code });
      throw thrown;
    } finally {
      span.end();
    }
  });

  const state = route('/deepagents-runtime/state/{thread_id}', async (exchange) => {
    const threadId = threadOf(exchange);
    const row = cleanup.isGoing(threadId) ? null : await reached(() => store.find(threadId));
    if (row === null) throw new Problem('thread_not_found');
    const isDone = row.status === 'completed' || row.status === 'failed';
    const files = isDone ? (row.files ?? '{}') : JSON.stringify(supervisor.get(threadId)?.files ?? {});
    const result = row.status === 'completed' ? { message: 'The run completed' } : null;
    const head = JSON.stringify({ thread_id: threadId, status: isDone ? row.status : 'running', result });
    // Files and error are JSON already.
    const error = row.error === null ? '' : `,"error":${row.error}`;
    exchange.replyJson(200, `${head.slice(0, -1)},"generated_files":${files}${error}}`);
  });

  const upgrade = route('/deepagents-runtime/stream/{thread_id}', async (exchange) => {
    const threadId = threadOf(exchange);
    const position = positionOf(exchange.query);
    if (retired) throw new Problem('not_ready', 'The runtime stops');
    const data: StreamData = { threadId, position, log: await streams.find(threadId), reader: null };
    exchange.upgrade(data);
  });

  const app = App();
  app.post('/deepagents-runtime/invoke', invoke);
  app.post('/', invoke);
  app.get('/deepagents-runtime/state/:thread_id', state);
  app.post(
    '/deepagents-runtime/cancel/:thread_id',
    route('/deepagents-runtime/cancel/{thread_id}', async (exchange) => {
      const threadId = threadOf(exchange);
      await cancel(threadId);
      exchange.replyJson(202, { thread_id: threadId });
    }),
  );
  app.del(
    '/deepagents-runtime/cleanup/:thread_id',
    route('/deepagents-runtime/cleanup/{thread_id}', async (exchange) => {
      if (!(await cleanup.cleanUp(threadOf(exchange)))) throw new Problem('thread_not_found');
      exchange.reply(204);
    }),
  );
  app.get(
    '/health',
    route('/health', async (exchange) => exchange.replyJson(200, { status: 'ok' })),
  );
  app.get(
    '/ready',
    route('/ready', async (exchange) => {
      if (retired) throw new Problem('not_ready', 'The runtime stops');
      await reached(() => store.ping());
      exchange.replyJson(200, { status: 'ready', database: 'ok' });
    }),
  );
  app.get(
    '/metrics',
    route('/metrics', async (exchange) =>
      exchange.reply(200, await metrics.render(), { 'content-type': metrics.contentType }),
    ),
  );
  app.ws<StreamData>('/deepagents-runtime/stream/:thread_id', {
    upgrade,
    // Above what is taken, so that too big a message is answered rather than the connection cut.
    maxPayloadLength: 2 * limits.viewerMessageBytes,
    maxBackpressure: 2 * limits.runtimeFrameBytes + readerBudgetBytes,
    closeOnBackpressureLimit: 1,
    idleTimeout: 60,
    sendPingsAutomatically: true,
    open(ws) {
      const reader = createStreamReader(ws, {
        run: (threadId) => supervisor.get(threadId),
        cancel,
        onClosedEarly: metrics.readersClosed,
        stalls,
      });
      ws.getUserData().reader = reader;
      readers.add(reader);
    },
    drain: (ws) => ws.getUserData().reader?.drain(),
    message(ws, message, isBinary) {
      if (message.byteLength > limits.viewerMessageBytes) ws.end(1009, 'message too big');
      else ws.getUserData().reader?.message(message, isBinary);
    },
    close(ws) {
      const { reader } = ws.getUserData();
      if (reader === null) return;
      readers.delete(reader);
      reader.closed();
    },
  });
  // Without it the package answers with a page of its own.
  app.any(
    '/*',
    route('other', async () => {
      throw new Problem('not_found');
    }),
  );

  return {
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        app.listen(host, port, (socket) => {
          if (socket === false) {
            reject(new Error(`cannot listen on ${host}:${port}`));
            return;
          }
          listening = socket;
          resolve(us_socket_local_port(socket));
        });
      }),
    retire() {
      retired = true;
      if (listening !== null) us_listen_socket_close(listening);
      listening = null;
    },
    async close() {
      stalls.stop();
      for (const reader of readers) reader.restart();
      // Close frames leave with the turn; what a reader does not take is cut.
      await new Promise((resolve) => setTimeout(resolve, readers.size > 0 ? 50 : 0));
      app.close();
    },
  };
}

/** @throws {Problem} invalid_position */
function positionOf(query: URLSearchParams): Position {
  const whole = (name: string): number | null => {
    const given = query.get(name);
    if (given === null) return null;
    const value = /^\d{1,15}$/.test(given) ? Number(given) : Number.NaN;
    if (Number.isNaN(value)) throw new Problem('invalid_position', `\`${name}\` must be a whole number`);
    return value;
  };
  return { after: whole('after') ?? 0, epoch: whole('epoch') };
}
