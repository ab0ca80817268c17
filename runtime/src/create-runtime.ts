import type { Tracer } from '@opentelemetry/api';
import type pg from 'pg';
import type { AgentRunner } from './agent-runner.js';
import type { RuntimeConfig } from './config.js';
import { createPool } from './db/pool.js';
import { prepareDatabase } from './db/prepare-database.js';
import { createRunStore } from './db/runs-store.js';
import { createRuntimeServer } from './http/server.js';
import { createEventLogStore } from './runs/event-log.js';
import { createIdleWatch } from './runs/idle-watch.js';
import { createRunCleanup } from './runs/run-cleanup.js';
import { createRunIntake } from './runs/run-intake.js';
import { createRunQueue } from './runs/run-queue.js';
import { createRunStreams } from './runs/run-streams.js';
import { createRunSupervisor } from './runs/run-supervisor.js';
import type { Logger } from './telemetry/logger.js';
import { createMetrics } from './telemetry/metrics.js';

export interface RuntimeDeps {
  logger: Logger;
  tracer: Tracer;
  /** Makes what runs the agents, on a pool of its own; its tables are its own affair. */
  createRunner: (deps: { pool: pg.Pool; logger: Logger }) => Promise<AgentRunner>;
  /** Monotonic milliseconds. */
  now: () => number;
}

export interface Runtime {
  port: number;
  /** Ends in order: no new connections, runs to the end of their step, readers sent away, pools closed. */
  stop(): Promise<void>;
}

/**
 * Starts a runtime: database, unfinished runs, then the port. Whoever connects finds every run that
 * there is.
 * @throws where the database or the port cannot be had.
 */
export async function createRuntime(config: RuntimeConfig, deps: RuntimeDeps): Promise<Runtime> {
  const { logger, tracer, now } = deps;
  await prepareDatabase({ logger }, config.databaseUrl);
  const poolOf = (name: string): pg.Pool =>
    createPool({ logger }, { databaseUrl: config.databaseUrl, size: config.databasePoolSize, name });
  // Two pools: checkpoints come in floods, and an invoke must not wait behind them.
  const pool = poolOf('runs');
  const checkpointPool = poolOf('checkpoints');
  const idleWatch = createIdleWatch({ now }, config.runIdleMs);
  const closePools = async (): Promise<void> => {
    idleWatch.stop();
    await Promise.all([pool.end(), checkpointPool.end()]);
  };

  try {
    const runner = await deps.createRunner({ pool: checkpointPool, logger });
    const store = createRunStore({ pool });
    const queue = createRunQueue({ running: config.runConcurrency, starting: config.startConcurrency });
    const logs = createEventLogStore({ onEvent: (type) => metrics.eventSent(type) }, config.eventLogBytes);
    const metrics = createMetrics({
      countRuns: () => store.countByStatus(),
      queueLength: () => queue.length,
      eventLogBytes: () => logs.bytes,
    });
    const supervisor = createRunSupervisor(
      { runner, store, logs, queue, idleWatch, tracer, logger, now, onRunEnded: metrics.runEnded },
      config.runDeadlineMs,
    );
    const intake = createRunIntake({ runner, store, supervisor, queue, logger }, config);
    const cleanup = createRunCleanup(
      { runner, store, supervisor, intake, logs, logger },
      config.abortGraceMs,
    );
    const streams = createRunStreams({ runner, store, supervisor, intake, cleanup, logs });
    const server = createRuntimeServer(
      { store, intake, cleanup, streams, supervisor, metrics, tracer, logger, now },
      config.readerStallMs,
    );

    // Before the port: a 404 means that there is no such run.
    const unfinished = await store.takeUnfinished();
    for (const run of unfinished) supervisor.start(run, false);
    const stopping = new AbortController();
    const purging = cleanup.finishUnpurged(stopping.signal);
    const port = await server.listen(config.host, config.port);
    logger.info({ port, model: config.model, resumed: unfinished.length }, 'ready');

    return {
      port,
      async stop() {
        server.retire();
        stopping.abort();
        intake.stop();
        await supervisor.stop(config.stopGraceMs);
        await purging;
        await server.close();
        await closePools();
        logger.info('stopped');
      },
    };
  } catch (thrown) {
    await closePools();
    throw thrown;
  }
}
