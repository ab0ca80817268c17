import { randomBytes, randomUUID } from 'node:crypto';
import { trace } from '@opentelemetry/api';
import { SignJWT } from 'jose';
import type { DatabasePool } from 'slonik';
import { type Config, loadConfig } from '../../src/config.js';
import type { GeneratedFiles } from '../../src/db/conflict-rule.js';
import { readThread } from '../../src/db/proposals.js';
import { commitCompleted, commitFailed } from '../../src/db/run-progress.js';
import { createServer, type Server, type ServerDeps } from '../../src/http/server.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.js';
import { createTestDatabase } from './database.js';
import { createFakeDirectory, type FakeDirectory } from './fake-directory.js';

interface Owner {
  teardown(handler: () => Promise<void> | void): void;
}

interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into freely by tests
  body: any;
  text: string;
}

interface CallOptions {
  body?: unknown;
  headers?: Record<string, string>;
}

export interface Api {
  server: Server;
  url: string;
  pool: DatabasePool;
  databaseUrl: string;
  directory: FakeDirectory;
  metrics: Metrics;
  secret: string;
  /** Log lines so far, parsed. */
  logs: Record<string, unknown>[];
  token(userId: string, claims?: { expiresIn?: number }): Promise<string>;
  /** Ends the run of a processing proposal as its owner would. */
  complete(proposalId: string, generatedFiles: GeneratedFiles): Promise<void>;
  fail(proposalId: string): Promise<void>;
  /** Calls as this user; null sends no token. */
  call(user: string | null, method: string, path: string, options?: CallOptions): Promise<Answer>;
}

type Overrides = {
  [Section in 'http' | 'viewers' | 'auth' | 'database']?: Partial<Config[Section]>;
} & {
  bodyDeadlineMs?: number;
  db?: ServerDeps['db'];
  wrap?: (pool: DatabasePool) => ServerDeps['db'];
  now?: () => number;
  production?: boolean;
};

/** A real server on free ports, on a database of its own, with a directory that stands in for the actors. */
export async function createApi(owner: Owner, overrides: Overrides = {}): Promise<Api> {
  const { url: databaseUrl, pool } = await createTestDatabase({
    teardown: (handler) => owner.teardown(handler),
  });
  const secret = randomBytes(32).toString('hex');
  const base = loadConfig({ JWT_SECRET: secret, PORT: '0', METRICS_PORT: '0' });
  const config: Config = {
    ...base,
    production: overrides.production ?? false,
    http: { ...base.http, ...overrides.http },
    viewers: { ...base.viewers, ...overrides.viewers },
    auth: { ...base.auth, ...overrides.auth },
    database: { ...base.database, ...overrides.database },
  };
  const logs: Record<string, unknown>[] = [];
  const metrics = createMetrics({ processMetrics: false });
  const directory = createFakeDirectory();
  const server = await createServer({
    config,
    db: overrides.db ?? overrides.wrap?.(pool) ?? pool,
    directory,
    metrics,
    log: createLogger({
      level: 'debug',
      production: false,
      destination: { write: (line) => void logs.push(JSON.parse(line)) },
    }),
    tracer: trace.getTracer('test'),
    nodeId: 'node-1',
    ...(overrides.bodyDeadlineMs === undefined ? {} : { bodyDeadlineMs: overrides.bodyDeadlineMs }),
    ...(overrides.now === undefined ? {} : { now: overrides.now }),
  });
  owner.teardown(() => server.stop(1000));
  const url = `http://127.0.0.1:${server.port}`;
  const fenceOf = async (proposalId: string) => {
    const row = await readThread(pool, { proposalId });
    if (row === null) throw new Error('there is no such proposal');
    return {
      fence: {
        proposalId,
        generation: row.ownerGeneration,
        version: row.version,
        transitionId: randomUUID(),
      },
      attempt: row.attempt,
    };
  };
  const token: Api['token'] = (userId, claims = {}) =>
    new SignJWT({})
      .setProtectedHeader({ alg: 'HS256' })
      .setSubject(userId)
      .setExpirationTime(Math.floor(Date.now() / 1000) + (claims.expiresIn ?? 3600))
      .sign(new TextEncoder().encode(secret));
  return {
    server,
    url,
    pool,
    databaseUrl,
    directory,
    metrics,
    secret,
    logs,
    token,
    async complete(proposalId, generatedFiles) {
      const { fence, attempt } = await fenceOf(proposalId);
      const done = await commitCompleted(pool, fence, {
        from: 'finalizing',
        event: 'runtime.ended',
        attempt,
        generatedFiles,
        warnings: [],
        lastFrames: { epoch: '1.1', frames: [] },
        finalEpoch: '1.1',
      });
      if (done === null) throw new Error('the proposal was not completed');
    },
    async fail(proposalId) {
      const { fence, attempt } = await fenceOf(proposalId);
      const done = await commitFailed(pool, fence, {
        from: 'streaming',
        event: 'runtime.failed',
        attempt,
        error: { code: 'runtime_error', message: 'broken', retryable: false },
        warnings: [],
        lastFrames: null,
        finalEpoch: null,
      });
      if (done === null) throw new Error('the proposal was not failed');
    },
    async call(user, method, path, options = {}) {
      const headers: Record<string, string> = { connection: 'close', ...options.headers };
      if (user !== null) headers.authorization = `Bearer ${await token(user)}`;
      if (options.body !== undefined) headers['content-type'] ??= 'application/json';
      const response = await fetch(url + path, {
        method,
        headers,
        ...(options.body === undefined
          ? {}
          : { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) }),
      });
      const text = await response.text();
      const isJson = /json/.test(response.headers.get('content-type') ?? '');
      return {
        status: response.status,
        headers: response.headers,
        text,
        body: isJson ? JSON.parse(text) : text,
      };
    },
  };
}
