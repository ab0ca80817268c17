import { randomBytes, randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import type { Tracer } from '@opentelemetry/api';
import { createCleanUp } from './actors/clean-up.js';
import { createThreadRegistry } from './actors/thread-registry.js';
import { createTranscriptKeeper } from './actors/transcript-keeper.js';
import type { Config } from './config.js';
import { createHeartbeat } from './db/beat.js';
import { expireUndecided } from './db/decisions.js';
import { createListener } from './db/listen.js';
import { createPool } from './db/pool.js';
import { createPulse } from './db/pulse.js';
import { purgeExpired } from './db/retention.js';
import { createServer } from './http/server.js';
import { createFrameCounts } from './streams/frame-counts.js';
import { createWindowBudget } from './streams/replay-window.js';
import { createDeepAgentsRuntimeClient } from './streams/runtime-client.js';
import { createRuntimeLog } from './streams/runtime-log.js';
import { createRuntimeFrames } from './streams/runtime-socket.js';
import type { Publish } from './streams/viewer.js';
import type { Logger } from './telemetry/logger.js';
import type { Metrics } from './telemetry/metrics.js';
import { recordSpan } from './telemetry/tracing.js';

export interface ServiceDeps {
  config: Config;
  databaseUrl: string;
  runtimeUrl: string;
  /** No other replica can be alive: what one before us left behind is taken over at once. */
  sole: boolean;
  log: Logger;
  metrics: Metrics;
  tracer: Tracer;
}

export interface Service {
  port: number;
  metricsPort: number;
  /** Live threads. */
  threads(): number;
  /** Not ready any more, everything handed over, then closed. */
  stop(): Promise<void>;
}

const CLEAN_UP_MS = 1_000;
const TRANSCRIPTS_MS = 1_000;
const LOG_PIECE_MS = 5_000;
const RETENTION_MS = 60_000;
/** A replica that has lost the runtime, and nothing to ask it, asks after a thread that nobody knows. */
const PROBE_MS = 5_000;
const EXPIRE_BATCH = 200;
/** What a database that is frozen may hold up the stop, twice. */
const LAST_WAIT_MS = 2_000;

const atMost = (work: Promise<void>) => Promise.race([work, wait(LAST_WAIT_MS, undefined, { ref: false })]);

/** One replica of the orchestrator on a migrated database. `main.ts` and the tests run the same. */
export async function createService(deps: ServiceDeps): Promise<Service> {
  const { config, log, metrics } = deps;
  const node = `${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}`;
  const pulse = createPulse();
  const db = await createPool({
    url: deps.databaseUrl,
    maximumPoolSize: config.database.poolSize,
    applicationName: 'ide-orchestrator',
    pulse,
    onQuery(query, seconds, error) {
      metrics.dbQueryDurationSeconds.observe({ query }, seconds);
      recordSpan(deps.tracer, `postgresql.${query}`, seconds, error);
    },
  });
  const client = createDeepAgentsRuntimeClient({
    url: deps.runtimeUrl,
    config: config.runtime,
    metrics,
    tracer: deps.tracer,
    log,
    random: Math.random,
  });
  const frameCounts = createFrameCounts();
  metrics.onCollect(() => {
    for (const [kind, count] of Object.entries(frameCounts.take())) {
      if (count > 0) metrics.websocketFramesSentTotal.inc({ event_type: kind }, count);
    }
  });
  const cleanUp = createCleanUp({
    db,
    client,
    node,
    log,
    delaySeconds: (tries) => Math.min(60, 2 ** Math.min(tries, 6)),
  });

  const runtimeFrames = createRuntimeFrames({
    open: ({ threadId, position, reads }) =>
      client.streamWebSocket({
        threadId,
        after: position?.after ?? null,
        epoch: position?.epoch ?? null,
        reads,
      }),
    pingIntervalMs: config.runtime.pingIntervalMs,
    frameBytes: config.runtime.frameBytes,
  });
  const runtimeLog = createRuntimeLog({ runtimeFrames, timeoutMs: LOG_PIECE_MS });
  const transcripts = createTranscriptKeeper({
    db,
    runtimeLog,
    runtimeAway: () => client.circuit.retryAfterSeconds() !== null,
    transcriptBytes: config.retention.transcriptBytes,
    log,
    onCleanUpDue: () => void cleanUp.deliver(),
  });

  let publish: Publish = () => undefined;
  const registry = createThreadRegistry({
    db,
    client,
    runtimeFrames,
    runtimeLog,
    transcripts,
    publish: (topic, message) => publish(topic, message),
    windowBudget: createWindowBudget(config.window),
    frameCounts,
    config,
    metrics,
    log,
    node,
    random: Math.random,
    now: () => performance.now(),
    onCleanUpDue: () => void cleanUp.deliver(),
    sole: deps.sole,
  });

  const heartbeat = createHeartbeat({
    url: deps.databaseUrl,
    nodeId: node,
    name: hostname(),
    runtimeReachable: () => client.silentMs() === 0,
    logger: log,
  });
  // The row of this node stands before any proposal names it.
  await heartbeat.ready;
  const server = await createServer({
    config,
    db,
    pulse,
    directory: registry,
    metrics,
    log,
    tracer: deps.tracer,
    nodeId: node,
  });
  publish = server.publish;
  const listener = createListener({
    url: deps.databaseUrl,
    channel: 'threads',
    onNotify: registry.notice,
    onReconnect: () => registry.reread(),
    logger: log,
  });
  await registry.start();

  const quietly = (work: () => Promise<unknown>, what: string) => () => {
    work().catch((error: unknown) => log.warn({ err: error }, what));
  };
  const timers = [
    // What a decision orders is not worth a look at the outbox by every replica after every commit.
    setInterval(() => void cleanUp.deliver(), CLEAN_UP_MS),
    setInterval(() => void transcripts.sweep(), TRANSCRIPTS_MS),
    setInterval(() => {
      if (client.silentMs() > 0) void client.getState(randomUUID());
    }, PROBE_MS),
    setInterval(
      quietly(async () => {
        const { transcriptMs, idempotencyMs, undecidedMs } = config.retention;
        const expired = await expireUndecided(db, { olderThanMs: undecidedMs, limit: EXPIRE_BATCH });
        if (expired.length > 0) metrics.proposalsResolvedTotal.inc({ resolution: 'expired' }, expired.length);
        await purgeExpired(db, { transcriptsMs: transcriptMs, keysMs: idempotencyMs });
      }, 'old rows could not be swept'),
      RETENTION_MS,
    ),
  ];

  return {
    port: server.port,
    metricsPort: server.metricsPort,
    threads: registry.size,
    async stop() {
      server.drain();
      for (const timer of timers) clearInterval(timer);
      await registry.stop();
      await Promise.all([server.stop(config.http.shutdownGraceMs), transcripts.stop()]);
      await registry.giveUpRest();
      client.stop();
      await Promise.all([atMost(cleanUp.stop()), listener.stop(), heartbeat.stop()]);
      pulse.stop();
      // A statement that a frozen database never answered is no reason to fail the stop.
      await atMost(db.end().catch((error: unknown) => log.warn({ err: error }, 'the pool did not end well')));
    },
  };
}
