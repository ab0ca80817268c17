import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import {
  createThreadPipeline,
  type ThreadPipeline,
  type ThreadPipelineDeps,
} from '../streams/thread-pipeline.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createOlderFrames } from './older-frames.js';
import type { Pauses } from './pauses.js';
import type { Role } from './proposal-types.js';

export interface ActorPipelineDeps
  extends Pick<
    ThreadPipelineDeps,
    'runtimeFrames' | 'windowBudget' | 'publish' | 'frameCounts' | 'now' | 'onRead'
  > {
  client: Pick<DeepAgentsRuntimeClient, 'getState' | 'pause'>;
  db: CommonQueryMethods;
  runtimeLog: RuntimeLog;
  config: Pick<Config, 'viewers'>;
  pauses: Pick<Pauses, 'sleep' | 'awayDelayMs'>;
  /** The run of now, as the runtime names it. */
  run: () => { attempt: number; threadId: string };
  /** The row has ended. */
  isFinal: () => boolean;
  isStopped: () => boolean;
  metrics: Metrics;
  log: Logger;
}

/** The epoch that a row names. */
export const epochOf = (row: ThreadRow): string =>
  row.finalEpoch ?? `${row.attempt}.${row.runtimeEpoch ?? 1}`;

/** The pipeline that a thread's actor reads by: where its row says that the run stands, and counted. */
export function createActorPipeline(deps: ActorPipelineDeps, row: ThreadRow, role: Role): ThreadPipeline {
  const { runtimeFrames, client, windowBudget, publish, frameCounts, isFinal, now, metrics } = deps;
  const { sleep, awayDelayMs } = deps.pauses;
  const { budgetBytes, stuckMs } = deps.config.viewers;
  const pipeline = createThreadPipeline({
    threadId: row.threadId,
    firstEpoch: '1.1',
    epoch: epochOf(row),
    readBefore: role === 'reader' || row.runtimeThreadId !== null ? row.attempt : null,
    runtimeFrames,
    client,
    windowBudget,
    older: createOlderFrames({
      db: deps.db,
      runtimeLog: deps.runtimeLog,
      proposalId: row.proposalId,
      run: deps.run,
      isFinal: () => isFinal() || pipeline.finished(),
      isStopped: deps.isStopped,
      sleep,
      now,
      log: deps.log,
    }),
    publish,
    viewerBudgetBytes: budgetBytes,
    viewerStuckMs: stuckMs,
    frameCounts,
    reconnectDelayMs: awayDelayMs,
    sleep: client.pause,
    now,
    onRead: deps.onRead,
    // No number: such an epoch has no order, and no log of the runtime's.
    randomEpoch: () => `r${randomUUID().slice(0, 8)}`,
    onResume: (recovery) => metrics.streamResumesTotal.inc({ recovery }),
    onStep(step) {
      if (step === 'closed') metrics.websocketSlowClosesTotal.inc();
      else metrics.websocketSlowStepsTotal.inc({ step });
    },
    onMerged: (frames) => metrics.websocketFramesMergedTotal.inc(frames),
    onLeftOut: (frames) => metrics.websocketFramesLeftOutTotal.inc(frames),
  });
  return pipeline;
}
