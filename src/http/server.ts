import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Tracer } from '@opentelemetry/api';
import type { CommonQueryMethods } from 'slonik';
import type { ThreadDirectory } from '../actors/thread-directory.js';
import type { Config } from '../config.js';
import { pendingMigrations } from '../db/migrate.js';
import type { Pulse } from '../db/pulse.js';
import type { Publish } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createAuthenticator } from './authenticate.js';
import { createBulkhead } from './bulkhead.js';
import { createCors } from './cors.js';
import { createDatabaseGate } from './database-gate.js';
import { createDispatch } from './dispatch.js';
import { openExchange } from './exchange.js';
import { collectGauges } from './gauges.js';
import { createKnownUsers } from './known-users.js';
import { createRateLimits } from './rate-limits.js';
import { createRouter } from './router.js';
import { routesOf } from './routes.js';
import { listenOn, loadUws } from './uws.js';
import { createViewerSockets } from './viewer-socket.js';
import { createUpgrade } from './viewer-upgrade.js';

export interface ServerDeps {
  config: Pick<Config, 'production' | 'http' | 'viewers' | 'auth' | 'database' | 'runtime' | 'runs'>;
  db: CommonQueryMethods;
  /** What the pool of `db` tells of its answers; without it only deadlines end a wait. */
  pulse?: Pick<Pulse, 'silentMs' | 'isIdle'>;
  directory: ThreadDirectory;
  metrics: Metrics;
  log: Logger;
  tracer: Tracer;
  /** Written into the rows of runs that this replica starts. */
  nodeId: string;
  now?: () => number;
  ids?: () => string;
  /** Milliseconds in which a body must have arrived. */
  bodyDeadlineMs?: number;
}

export interface Server {
  port: number;
  metricsPort: number;
  publish: Publish;
  viewers(): number;
  /** From now on `/ready` is 503 and upgrades are refused; everything else is answered as before. */
  drain(): void;
  /** Stops listening, closes viewers with 1012, waits for requests under way up to `graceMs`, then ends what is left. */
  stop(graceMs: number): Promise<void>;
}

/** Commits of runs and the watch over other replicas keep this many connections of the pool for themselves. */
const keptConnections = 2;
const waitingPerPlace = 50;

/**
 * Serves the API, the viewers' socket and, on its own port, the metrics.
 * @throws Error with code EADDRINUSE where a port is taken
 */
export async function createServer(deps: ServerDeps): Promise<Server> {
  const { config, db, directory, metrics, log } = deps;
  const { now = Date.now, ids = randomUUID } = deps;
  const uws = await loadUws(config.http);
  let stopping = false;
  const isStopping = () => stopping;

  const width = Math.max(1, config.database.poolSize - keptConnections);
  const shared = {
    db,
    directory,
    log,
    ids,
    now,
    authenticator: createAuthenticator({ auth: config.auth, now }),
    users: createKnownUsers({ now }),
    cors: createCors({ allowedOrigins: config.http.corsAllowedOrigins, production: config.production }),
    rateLimits: createRateLimits({
      http: config.http,
      onLimited: (scope) => metrics.rateLimitedTotal.inc({ scope }),
    }),
    gate: createDatabaseGate({
      bulkhead: createBulkhead({ width, queue: width * waitingPerPlace }),
      deadlineMs: config.database.queryDeadlineMs,
      pulse: deps.pulse ?? { silentMs: () => 0, isIdle: () => true },
      now: () => performance.now(),
    }),
  };
  const routes = routesOf({
    ...shared,
    random: randomBytes,
    nodeId: deps.nodeId,
    totalMs: config.runs.totalMs,
    ticketTtlMs: config.viewers.ticketTtlMs,
    pendingMigrations: () => pendingMigrations(db),
    isStopping,
    deadlineMs: config.database.queryDeadlineMs,
    metrics,
  });
  const dispatch = createDispatch({
    ...shared,
    router: createRouter(routes),
    metrics,
    tracer: deps.tracer,
    isStopping,
    limits: { ...config.http, bodyDeadlineMs: deps.bodyDeadlineMs ?? 30_000 },
  });
  const sockets = createViewerSockets({
    ...shared,
    ...config.viewers,
    frameBytes: config.runtime.frameBytes,
    metrics,
    upgrade: createUpgrade({
      ...shared,
      metrics,
      isStopping,
      headerBytes: config.http.headerBytes,
      traceIds: () => randomBytes(16).toString('hex'),
    }),
  });
  collectGauges({ metrics, users: shared.users, directory, db, deadlineMs: config.database.queryDeadlineMs });

  const app = uws.App();
  app.ws('/api/ws/refinements/:thread_id', sockets.behavior);
  app.any('/*', dispatch.handle);
  const metricsApp = uws.App();
  metricsApp.any('/*', (res, req) => {
    const exchange = openExchange(res, { withoutBody: req.getCaseSensitiveMethod() === 'HEAD' });
    if (req.getUrl() !== '/metrics') {
      exchange.send({ status: 404, headers: {}, body: null });
      return;
    }
    metrics.render().then(
      (body) => exchange.send({ status: 200, headers: { 'Content-Type': metrics.contentType }, body }),
      (err: unknown) => {
        log.error({ err }, 'metrics could not be rendered');
        exchange.send({ status: 500, headers: {}, body: null });
      },
    );
  });

  const listening = await listenOn(uws, app, config.http.host, config.http.port);
  const metricsListening = await listenOn(uws, metricsApp, config.http.host, config.http.metricsPort).catch(
    (error: unknown) => {
      app.close();
      throw error;
    },
  );

  let stopped: Promise<void> | null = null;
  const end = async (graceMs: number) => {
    stopping = true;
    listening.close();
    sockets.closeAll(1012, 'the server restarts, come back with your position');
    const until = performance.now() + graceMs;
    while (dispatch.inFlight() > 0 && performance.now() < until) await wait(10);
    app.close();
    metricsApp.close();
  };

  return {
    port: listening.port,
    metricsPort: metricsListening.port,
    publish: (topic, message) => {
      app.publish(topic, message, false);
    },
    viewers: sockets.count,
    drain() {
      stopping = true;
    },
    // Once: closing a listen socket of uWS a second time ends the process.
    stop: (graceMs) => (stopped ??= end(graceMs)),
  };
}
