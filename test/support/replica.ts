import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type Tracer, trace } from '@opentelemetry/api';
import { SignJWT } from 'jose';
import { WebSocket } from 'ws';
import { type Config, loadConfig } from '../../src/config.js';
import { createService, type Service } from '../../src/service.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.js';
import { eventually, PATIENCE_MS } from './until.js';

interface Owner {
  teardown(handler: () => Promise<void> | void): void;
}

interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into freely by tests
  body: any;
}

interface Frame {
  seq?: number;
  event_type: string;
  // biome-ignore lint/suspicious/noExplicitAny: frames are looked into freely by tests
  data: any;
}

/** A browser's end of the socket that writes down everything. */
export interface Watcher {
  frames: Frame[];
  /** The texts as they came, byte for byte. */
  texts: string[];
  socket: WebSocket;
  /** Resolves with the first frame of that kind, also one that came before. */
  until(kind: string, count?: number): Promise<Frame>;
  kinds(): string[];
  numbers(): number[];
  closed: Promise<{ code: number; reason: string }>;
}

/** A front end: calls and sockets of any user against one address. */
export interface Client {
  url: string;
  call(
    user: string,
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  watch(user: string, threadId: string, position?: { after?: number; epoch?: string }): Promise<Watcher>;
}

export interface Replica extends Client {
  service: Service;
  metrics: Metrics;
  logs: Record<string, unknown>[];
  /** Stops it as SIGTERM does. */
  stop(): Promise<void>;
}

/** Signs the tokens of all tests of a process. */
export const testSecret = randomBytes(32).toString('hex');

type Overrides = {
  [Section in 'http' | 'viewers' | 'database' | 'runtime' | 'runs' | 'window' | 'retention']?: Partial<
    Config[Section]
  >;
};

/** Quick where a person would wait, so that tests do not. */
const quick = {
  runs: { retryBaseMs: 20, retryMaxMs: 50, reconnectBaseMs: 10, reconnectMaxMs: 50, cancelGraceMs: 400 },
  http: { shutdownGraceMs: 1_000 },
} satisfies Overrides;

/** One replica of the orchestrator in this process, on real sockets and a real database. */
export async function createReplica(
  owner: Owner,
  parts: { databaseUrl: string; runtimeUrl: string; sole?: boolean; config?: Overrides; tracer?: Tracer },
): Promise<Replica> {
  const base = loadConfig({ JWT_SECRET: testSecret, PORT: '0', METRICS_PORT: '0' });
  const given = parts.config ?? {};
  const config: Config = {
    ...base,
    http: { ...base.http, ...quick.http, ...given.http },
    viewers: { ...base.viewers, ...given.viewers },
    database: { ...base.database, ...given.database },
    runtime: { ...base.runtime, ...given.runtime },
    runs: { ...base.runs, ...quick.runs, ...given.runs },
    window: { ...base.window, ...given.window },
    retention: { ...base.retention, ...given.retention },
  };
  const logs: Record<string, unknown>[] = [];
  const metrics = createMetrics({ processMetrics: false });
  const service = await createService({
    config,
    databaseUrl: parts.databaseUrl,
    runtimeUrl: parts.runtimeUrl,
    sole: parts.sole ?? true,
    log: createLogger({
      level: 'debug',
      production: false,
      destination: { write: (line) => void logs.push(JSON.parse(line)) },
    }),
    metrics,
    tracer: parts.tracer ?? trace.getTracer('test'),
  });
  let stopped = false;
  const stop = async () => {
    if (stopped) return;
    stopped = true;
    await service.stop();
  };
  owner.teardown(stop);
  const client = createClient(owner, `http://127.0.0.1:${service.port}`);
  return { ...client, service, metrics, logs, stop };
}

export function createClient(owner: Owner, url: string): Client {
  const token = (user: string) =>
    new SignJWT({})
      .setProtectedHeader({ alg: 'HS256' })
      .setSubject(user)
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(Buffer.from(testSecret));

  return {
    url,
    async call(user, method, path, body, headers = {}) {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${await token(user)}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      return { status: answer.status, headers: answer.headers, body: text === '' ? null : JSON.parse(text) };
    },
    async watch(user, threadId, position = {}) {
      const query = new URLSearchParams();
      if (position.after !== undefined) query.set('after', String(position.after));
      if (position.epoch !== undefined) query.set('epoch', position.epoch);
      const socket = new WebSocket(`${url.replace('http', 'ws')}/api/ws/refinements/${threadId}?${query}`, {
        headers: { authorization: `Bearer ${await token(user)}` },
        perMessageDeflate: false,
        maxPayload: 64 * 1024 * 1024,
      });
      const frames: Frame[] = [];
      const texts: string[] = [];
      const wakers = new Set<() => void>();
      socket.on('message', (data) => {
        texts.push(String(data));
        frames.push(JSON.parse(String(data)) as Frame);
        for (const wake of wakers) wake();
      });
      const closed = new Promise<{ code: number; reason: string }>((resolve) => {
        socket.once('close', (code, reason) => resolve({ code, reason: String(reason) }));
      });
      owner.teardown(() => socket.terminate());
      await once(socket, 'open');
      return {
        frames,
        texts,
        socket,
        closed,
        kinds: () => frames.map((frame) => frame.event_type),
        numbers: () => frames.flatMap((frame) => (frame.seq === undefined ? [] : [frame.seq])),
        until(kind, count = 1) {
          return new Promise((resolve, reject) => {
            const timeout = setTimeout(
              () =>
                reject(
                  new Error(
                    `no ${kind} in ${PATIENCE_MS} ms, but ${frames.map((f) => f.event_type).join(' ')}`,
                  ),
                ),
              PATIENCE_MS,
            );
            const look = () => {
              const found = frames.filter((frame) => frame.event_type === kind)[count - 1];
              if (found === undefined) return;
              clearTimeout(timeout);
              wakers.delete(look);
              resolve(found);
            };
            wakers.add(look);
            look();
          });
        },
      };
    },
  };
}

/** A workflow with files, and a refinement of it. */
export async function startRefinement(
  replica: Client,
  user: string,
  files: Record<string, string> = { '/a.md': 'one' },
  prompt = 'Change it',
): Promise<{ workflowId: string; proposalId: string; threadId: string }> {
  const workflow = await replica.call(user, 'POST', '/api/workflows', { name: 'w', files });
  const started = await replica.call(user, 'POST', `/api/workflows/${workflow.body.id}/refinements`, {
    user_prompt: prompt,
  });
  if (started.status !== 202)
    throw new Error(`no refinement: ${started.status} ${JSON.stringify(started.body)}`);
  const { proposal_id: proposalId, thread_id: threadId } = started.body;
  return { workflowId: workflow.body.id, proposalId, threadId };
}

/** Waits until the proposal has that status, and answers it as its owner sees it. */
export async function untilStatus(replica: Client, proposalId: string, status: string, user = 'ann') {
  let proposal: Answer['body'];
  await eventually(`a proposal that is ${status}`, async () => {
    proposal = (await replica.call(user, 'GET', `/api/proposals/${proposalId}`)).body;
    return proposal.status === status;
  });
  return proposal;
}
