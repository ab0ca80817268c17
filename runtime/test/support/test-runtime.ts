import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import { type Tracer, trace } from '@opentelemetry/api';
import WebSocket from 'ws';
import type { AgentRunner } from '../../src/agent-runner.js';
import { type RuntimeConfig, readConfig } from '../../src/config.js';
import { createRuntime, type Runtime } from '../../src/create-runtime.js';
import { createLogger } from '../../src/telemetry/logger.js';

interface Frame {
  seq?: number;
  event_type: string;
  data: Record<string, unknown>;
}

export interface Stream {
  frames: Frame[];
  texts: string[];
  socket: WebSocket;
  /** Resolves when it was let in; rejects where it was not. */
  opened: Promise<void>;
  /** Resolves with the close code. */
  closed: Promise<number>;
  /** Resolves with the first frame that fits, seen already or to come; rejects when the socket closes first. */
  until(fits: (frame: Frame) => boolean): Promise<Frame>;
}

export interface RuntimeClient {
  url: string;
  request(path: string, init?: RequestInit): Promise<{ status: number; body: unknown; headers: Headers }>;
  invoke(job?: Record<string, unknown>): Promise<{ status: number; body: Record<string, unknown> }>;
  state(threadId: string): Promise<{ status: number; body: Record<string, unknown> }>;
  cancel(threadId: string): Promise<number>;
  cleanUp(threadId: string): Promise<{ status: number; body: unknown }>;
  stream(threadId: string, query?: string): Stream;
  /** Status of a refused upgrade. */
  refused(threadId: string, query?: string): Promise<number>;
  /** Polls until the run is no longer running. */
  finished(threadId: string): Promise<Record<string, unknown>>;
}

export function jobOf(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    trace_id: randomUUID(),
    job_id: randomUUID(),
    agent_definition: {},
    input_payload: { messages: [{ role: 'user', content: 'Add web search' }] },
    ...changes,
  };
}

export function createRuntimeClient(url: string): RuntimeClient {
  const request: RuntimeClient['request'] = async (path, init) => {
    const response = await fetch(`${url}${path}`, init);
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') === true;
    return { status: response.status, body: isJson ? JSON.parse(text) : text, headers: response.headers };
  };
  const objectAt = async (path: string, init?: RequestInit) => {
    const { status, body } = await request(path, init);
    return { status, body: body as Record<string, unknown> };
  };
  const streamUrl = (threadId: string, query: string): string =>
    `${url.replace('http', 'ws')}/deepagents-runtime/stream/${threadId}${query}`;
  const client: RuntimeClient = {
    url,
    request,
    invoke: (job = jobOf()) =>
      objectAt('/deepagents-runtime/invoke', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(job),
      }),
    state: (threadId) => objectAt(`/deepagents-runtime/state/${threadId}`),
    cancel: async (threadId) =>
      (await request(`/deepagents-runtime/cancel/${threadId}`, { method: 'POST' })).status,
    cleanUp: (threadId) => request(`/deepagents-runtime/cleanup/${threadId}`, { method: 'DELETE' }),
    stream(threadId, query = '') {
      const socket = new WebSocket(streamUrl(threadId, query), { perMessageDeflate: false });
      const frames: Frame[] = [];
      const texts: string[] = [];
      const waiting = new Set<() => void>();
      let code: number | null = null;
      socket.on('message', (data) => {
        texts.push(String(data));
        frames.push(JSON.parse(String(data)) as Frame);
        for (const look of waiting) look();
      });
      socket.on('error', () => {});
      const opened = once(socket, 'open').then(() => undefined);
      // Not everybody waits for it.
      opened.catch(() => undefined);
      const closed = new Promise<number>((resolve) => {
        socket.on('close', (closeCode) => {
          code = closeCode;
          resolve(closeCode);
          for (const look of waiting) look();
        });
      });
      return {
        frames,
        texts,
        socket,
        opened,
        closed,
        until: (fits) =>
          new Promise((resolve, reject) => {
            const look = (): void => {
              const found = frames.find(fits);
              if (found === undefined && code === null) return;
              waiting.delete(look);
              if (found === undefined) reject(new Error(`closed with ${code} first`));
              else resolve(found);
            };
            waiting.add(look);
            look();
          }),
      };
    },
    refused: (threadId, query = '') =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(streamUrl(threadId, query));
        socket.on('error', () => {});
        socket.on('open', () => {
          socket.terminate();
          reject(new Error('was not refused'));
        });
        socket.on('unexpected-response', (_request, response) => {
          response.resume();
          socket.terminate();
          resolve(response.statusCode ?? 0);
        });
      }),
    async finished(threadId) {
      for (;;) {
        const { status, body } = await client.state(threadId);
        if (status === 200 && body.status !== 'running') return body;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  };
  return client;
}

function testConfig(databaseUrl: string, changes: Partial<RuntimeConfig> = {}): RuntimeConfig {
  const config = readConfig({ RUNTIME_DATABASE_URL: databaseUrl, RUNTIME_PORT: '0', LOG_LEVEL: 'silent' });
  return { ...config, stopGraceMs: 500, ...changes };
}

export interface TestRuntime extends RuntimeClient, Runtime {}

/** A runtime in this process, on a port of its own. */
export async function startRuntime(
  databaseUrl: string,
  runner: AgentRunner,
  changes: Partial<RuntimeConfig> = {},
  tracer: Tracer = trace.getTracer('test'),
): Promise<TestRuntime> {
  const runtime = await createRuntime(testConfig(databaseUrl, changes), {
    logger: createLogger(process.env.LOG_LEVEL ?? 'silent'),
    tracer,
    now: () => performance.now(),
    createRunner: async () => runner,
  });
  return { ...runtime, ...createRuntimeClient(`http://127.0.0.1:${runtime.port}`) };
}
