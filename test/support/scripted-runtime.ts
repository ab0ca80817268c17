import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { invokeRequest } from '@ide-orchestrator/protocol';
import { type WebSocket, WebSocketServer } from 'ws';
import { listenAgain, listenOnKeptPort } from './same-port.js';
import {
  createScriptedThread,
  type ScriptedThread,
  type StreamPosition,
  type ThreadManner,
} from './scripted-thread.js';

type RuntimeEndpoint = 'invoke' | 'state' | 'cancel' | 'cleanup' | 'stream' | 'ready';

/** A request as it arrived, streams included. */
export interface ScriptedRequest {
  readonly endpoint: RuntimeEndpoint;
  readonly threadId: string;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Parsed where it was JSON. */
  readonly body: unknown;
  /** The caller went away before it was answered. */
  aborted: boolean;
}

/**
 * One answer: `hang` never answers, `cut` destroys the connection without a word. A string or Buffer body goes out as it is,
 * anything else as JSON. `cutBody` sends the head and the body, then destroys the connection before the length it promised.
 * `after` holds the answer back until then.
 */
export type ScriptedAnswer =
  | 'hang'
  | 'cut'
  | {
      status: number;
      body?: unknown;
      headers?: Record<string, string>;
      delayMs?: number;
      after?: Promise<unknown>;
      cutBody?: boolean;
    };

type Answering = (request: ScriptedRequest) => ScriptedAnswer | undefined;

/** What differs from a healthy runtime. `undefined` from a function = the healthy answer. Tests change the members at any time. */
export interface RuntimeScript extends Partial<ThreadManner> {
  invoke?: Answering;
  state?: Answering;
  cancel?: Answering;
  cleanup?: Answering;
  ready?: (request: ScriptedRequest) => ScriptedAnswer | Promise<ScriptedAnswer>;
  /** Instead of the upgrade: an HTTP status, `hang`, `cut`. */
  upgrade?: Answering;
  /** Instead of the thread's log: speaks by itself on the opened socket. */
  stream?: (socket: WebSocket, request: ScriptedRequest, position: StreamPosition) => void;
  /** Called after a new run was made, to push frames at once or over time. */
  run?: (thread: ScriptedThread) => void;
}

export interface ScriptedRuntime {
  /** `http://127.0.0.1:<port>`, without a path. */
  readonly url: string;
  readonly script: RuntimeScript;
  /** In order of arrival. */
  readonly requests: readonly ScriptedRequest[];
  /** Runs that were started and not cleaned up, by thread id. */
  readonly threads: ReadonlyMap<string, ScriptedThread>;
  /** Connections that were ever made. */
  readonly connections: number;
  requestsOf(endpoint: RuntimeEndpoint): readonly ScriptedRequest[];
  /** Resolves with the n-th (from 1) request of that kind, also one that came before. */
  untilRequest(endpoint: RuntimeEndpoint, count?: number): Promise<ScriptedRequest>;
  /** The port refuses and every connection is destroyed; threads are kept. */
  goAway(): Promise<void>;
  /** Listens again on the same port. */
  comeBack(): Promise<void>;
  stop(): Promise<void>;
}

const routes: readonly [RegExp, string, RuntimeEndpoint][] = [
  [/^\/deepagents-runtime\/(invoke)$/, 'POST', 'invoke'],
  [/^\/deepagents-runtime\/state\/([^/]+)$/, 'GET', 'state'],
  [/^\/deepagents-runtime\/cancel\/([^/]+)$/, 'POST', 'cancel'],
  [/^\/deepagents-runtime\/cleanup\/([^/]+)$/, 'DELETE', 'cleanup'],
  [/^\/deepagents-runtime\/stream\/([^/]+)$/, 'GET', 'stream'],
  [/^\/ready()$/, 'GET', 'ready'],
];

/** A runtime in this process, on real sockets, that answers as protocol.md §1 says unless the script says otherwise. */
export async function createScriptedRuntime(script: RuntimeScript = {}): Promise<ScriptedRuntime> {
  const requests: ScriptedRequest[] = [];
  const threads = new Map<string, ScriptedThread>();
  const sockets = new Set<Socket>();
  let connections = 0;
  const arrivals = new EventEmitter().setMaxListeners(0);
  const upgrades = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: 64 * 1024 * 1024,
  });

  const record = (message: IncomingMessage, body: string): ScriptedRequest | undefined => {
    const path = new URL(message.url ?? '/', 'http://runtime').pathname;
    for (const [pattern, method, endpoint] of routes) {
      const match = pattern.exec(path);
      if (match === null || message.method !== method) continue;
      const parsedBody = parsed(body);
      const threadId = endpoint === 'invoke' ? jobIdOf(parsedBody) : decodeURIComponent(match[1] ?? '');
      const { url = '', headers } = message;
      const request = { endpoint, threadId, method, url, headers, body: parsedBody, aborted: false };
      requests.push(request);
      arrivals.emit('request');
      return request;
    }
    return undefined;
  };

  const start = (request: ScriptedRequest): ScriptedAnswer => {
    const job = invokeRequest.safeParse(request.body);
    if (!job.success) return problem(422, 'validation_failed');
    const id = job.data.job_id;
    if (!threads.has(id)) {
      const { numbered = true, opens = numbered, closesAfterEnd = true } = script;
      const thread = createScriptedThread(job.data, id, { numbered, opens, closesAfterEnd });
      threads.set(id, thread);
      // After the answer, so that a script which ends at once does not end before the run was answered.
      setImmediate(() => script.run?.(thread));
    }
    return { status: 200, body: { thread_id: id, status: 'started' } };
  };

  const healthy = (request: ScriptedRequest): ScriptedAnswer => {
    if (request.endpoint === 'invoke') return start(request);
    if (request.endpoint === 'ready') return { status: 200, body: { status: 'ready' } };
    const thread = threads.get(request.threadId);
    if (thread === undefined) return problem(404, 'thread_not_found');
    if (request.endpoint === 'state') return { status: 200, body: thread.state() };
    if (request.endpoint === 'cleanup') {
      threads.delete(request.threadId);
      thread.cut();
      return { status: 204 };
    }
    if (thread.state().status === 'running') thread.fail('cancelled', 'The run was cancelled.', false);
    return { status: 202, body: {} };
  };

  const server = createServer((message, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of message) chunks.push(chunk as Buffer);
      const request = record(message, Buffer.concat(chunks).toString('utf8'));
      if (request === undefined || request.endpoint === 'stream')
        return answer(response, problem(404, 'not_found'));
      response.once('close', () => {
        request.aborted = !response.writableFinished;
      });
      await answer(response, (await script[request.endpoint]?.(request)) ?? healthy(request));
    })().catch(() => message.socket.destroy());
  });
  server.on('connection', (socket) => {
    connections++;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('upgrade', (message: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    const request = record(message, '');
    if (request === undefined) return void socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    const thread = threads.get(request.threadId);
    const missing = thread === undefined && script.stream === undefined;
    const instead = script.upgrade?.(request) ?? (missing ? { status: 404 } : undefined);
    if (instead === 'hang') return;
    if (instead === 'cut') return void socket.destroy();
    if (instead !== undefined) {
      return void socket.end(`HTTP/1.1 ${instead.status} Refused\r\nContent-Length: 0\r\n\r\n`);
    }
    upgrades.handleUpgrade(message, socket, head, (webSocket) => {
      webSocket.on('error', () => webSocket.terminate());
      const position = positionOf(request.url);
      if (script.stream !== undefined) script.stream(webSocket, request, position);
      else thread?.attach(webSocket, position);
    });
  });

  // A caller that was slow to come back would find its connection closed, which no test has asked for.
  server.keepAliveTimeout = 0;
  const goAway = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const port = await listenOnKeptPort(server);
  const requestsOf = (endpoint: RuntimeEndpoint) => requests.filter((each) => each.endpoint === endpoint);
  return {
    url: `http://127.0.0.1:${port}`,
    script,
    requests,
    threads,
    get connections() {
      return connections;
    },
    requestsOf,
    async untilRequest(endpoint, count = 1) {
      for (;;) {
        const found = requestsOf(endpoint)[count - 1];
        if (found !== undefined) return found;
        await once(arrivals, 'request');
      }
    },
    goAway,
    comeBack: () => listenAgain(server, port),
    stop: goAway,
  };
}

async function answer(response: ServerResponse, what: ScriptedAnswer): Promise<void> {
  if (what === 'hang') return;
  if (what === 'cut') return void response.socket?.destroy();
  await what.after;
  if (what.delayMs !== undefined) await wait(what.delayMs);
  const raw = typeof what.body === 'string' || Buffer.isBuffer(what.body);
  const body = raw
    ? (what.body as string | Buffer)
    : what.body === undefined
      ? ''
      : JSON.stringify(what.body);
  const length = Buffer.byteLength(body) + (what.cutBody ? 10 : 0);
  const framing = what.status === 204 ? {} : { 'content-length': String(length) };
  response.writeHead(what.status, { 'content-type': 'application/json', ...framing, ...what.headers });
  if (what.cutBody) response.write(body, () => response.socket?.destroy());
  else response.end(body);
}

function problem(status: number, code: string): ScriptedAnswer {
  return { status, body: { code, message: `scripted ${code}` } };
}

function positionOf(url: string): StreamPosition {
  const query = new URL(url, 'http://runtime').searchParams;
  const number = (name: string) => (query.has(name) ? Number(query.get(name)) : null);
  return { after: number('after'), epoch: number('epoch') };
}

function jobIdOf(body: unknown): string {
  return typeof body === 'object' && body !== null && 'job_id' in body ? String(body.job_id) : '';
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
