/*
 *  the runtime's stream ─► actor-pipeline ─► viewers     the row, each time that it is read
 *                               │ facts                               │
 *                          observe-run                           observe-row
 *                               │ runtime.*                 row.* │         │ owned from now on
 *                               └───────► the machine ◄───────────┘         │
 *                                          │       │ commits                ▼
 *                                   states │       └──────────────► ownership: transition-journal,
 *                                          │ phases, times                     phase-notes, commit-end,
 *                                   observe-state ────────────────►            thread-watchdog ─► the machine
 *                                          │
 *                                          └─► thread-waits, idle-time, stored-end ─► viewers
 *
 * What is made first asks what is made later only when something happens.
 */
import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import { type Actor, createActor } from 'xstate';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import type { FrameCounts } from '../streams/frame-counts.js';
import type { WindowBudget } from '../streams/replay-window.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import type { RuntimeFrames } from '../streams/runtime-socket.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Publish } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createActorPipeline } from './actor-pipeline.js';
import { createIdleTime, type IdleTime } from './idle-time.js';
import { createRowObserver, type RowObserver } from './observe-row.js';
import { createRunObserver } from './observe-run.js';
import { createStateObserver } from './observe-state.js';
import { createOwnership, type Ownership } from './ownership.js';
import type { Pauses } from './pauses.js';
import type { ProposalLives } from './proposal-actors.js';
import { proposalInputOf } from './proposal-input.js';
import type { proposalMachine } from './proposal-machine.js';
import type { ProposalEvent, Role } from './proposal-types.js';
import type { RunInput } from './run-input.js';
import { createStoredEnd } from './stored-end.js';
import { createThreadStanding, type ThreadStanding } from './thread-standing.js';
import { createThreadWaits, type ThreadWaits } from './thread-waits.js';
import type { TranscriptKeeper } from './transcript-keeper.js';
import type { WaitingCommits } from './waiting-commits.js';

export interface ThreadActorDeps {
  db: CommonQueryMethods;
  client: DeepAgentsRuntimeClient;
  runtimeFrames: RuntimeFrames;
  runtimeLog: RuntimeLog;
  publish: Publish;
  windowBudget: WindowBudget;
  frameCounts: FrameCounts;
  lives: ProposalLives;
  transcripts: Pick<TranscriptKeeper, 'complete'>;
  waitingCommits: WaitingCommits;
  config: Pick<Config, 'runs' | 'viewers' | 'database'>;
  metrics: Metrics;
  log: Logger;
  node: string;
  pauses: Pauses;
  /** Monotonic milliseconds. */
  now: () => number;
  onCleanUpDue: () => void;
  /** Whether another replica that lives reaches the runtime. */
  anotherReaches: () => boolean;
  /** The thread is being given up to whoever reaches the runtime; this replica is a reader of it then. */
  givingUp: (threadId: string) => { settled(happened: boolean): void };
  /** The actor broke: it is to be forgotten, and revived from its row. */
  onBroken: (threadId: string, error: unknown) => void;
}

export interface ThreadActorOptions {
  role: Role;
  /** The request that made the proposal waits for the first invoke. */
  awaited: boolean;
  /** The proposal's input, where it was just written. */
  input: RunInput | null;
  traceId: string;
  traceparent: string | null;
}

export interface ThreadParts {
  /** Not started yet. */
  machine: Actor<typeof proposalMachine>;
  standing: ThreadStanding;
  pipeline: ThreadPipeline;
  waits: ThreadWaits;
  idle: IdleTime;
  ownership: Ownership;
  rows: RowObserver;
  /** To be called with each snapshot of the machine. */
  observeState(): void;
  /** The machine's actors forget these parts. */
  leave(): void;
}

/** What a thread's actor is made of; nothing has begun yet. */
export function createThreadParts(
  deps: ThreadActorDeps,
  row: ThreadRow,
  options: ThreadActorOptions,
  own: { log: Logger; isStopped: () => boolean },
): ThreadParts {
  const { db, client, node, now, config, metrics, pauses, onCleanUpDue } = deps;
  const { maxAttempts, cancelGraceMs } = config.runs;
  const { role, awaited, input, traceId, traceparent } = options;
  const { log, isStopped } = own;
  const { threadId, proposalId } = row;
  const current = { attempt: row.attempt, jobId: row.jobId };
  const attempt = () => current.attempt;
  const { sleep, awayDelayMs, retryDelayMs } = pauses;

  const machine = createActor(deps.lives.machine, {
    input: proposalInputOf(row, { role, awaited, maxAttempts }),
  });
  const snapshot = () => machine.getSnapshot();
  const send = (event: ProposalEvent) => machine.send(event);
  const standing = createThreadStanding({ snapshot, row: () => rows.seen(), jobId: () => current.jobId });
  const { state, isFinal, isRefused } = standing;
  const pipeline = createActorPipeline(
    {
      db,
      client,
      runtimeFrames: deps.runtimeFrames,
      runtimeLog: deps.runtimeLog,
      publish: deps.publish,
      windowBudget: deps.windowBudget,
      frameCounts: deps.frameCounts,
      config,
      pauses,
      run: () => ({ attempt: attempt(), threadId: standing.runtimeThreadId() }),
      isFinal: () => rows.seen().status !== 'processing' || isFinal(),
      onRead: () => ownership.watchdog.read(),
      isStopped,
      now,
      metrics,
      log,
    },
    row,
    role,
  );
  const waits = createThreadWaits({
    state,
    isRefused,
    isRefusedForGood: () => ownership.isRefused(),
    isKnown: pipeline.known,
    isStopped,
    awaited,
    now,
  });
  const ownership = createOwnership(
    {
      db,
      node,
      client,
      config,
      waitingCommits: deps.waitingCommits,
      transcripts: deps.transcripts,
      pauses,
      pipeline,
      standing,
      attempt,
      ending: () => run.ending(),
      awaited: () => waits.awaited(),
      nobodyWaits: () => isStopped() || rows.seen().cancelRequestedAt !== null,
      traceparent,
      anotherReaches: deps.anotherReaches,
      givingUp: deps.givingUp,
      onMoved: (moved) => rows.observe(moved),
      onCleanUpDue,
      send,
      now,
      metrics,
      log,
    },
    row,
  );
  const run = createRunObserver({ state, notes: ownership.notes, onOpened: waits.changed });
  const stored = createStoredEnd({
    db,
    proposalId,
    pipeline,
    sleep,
    delayMs: awayDelayMs,
    now,
    isStopped,
    log,
  });
  const rows = createRowObserver(
    {
      node,
      maxAttempts,
      ownership,
      pipeline,
      current,
      state,
      context: () => snapshot().context,
      send,
      stored,
    },
    row,
  );
  const idle = createIdleTime({
    // A reader without viewers reads for nobody; its row is looked at again when somebody comes, or it is taken over.
    isAtRest: () => state() === 'following' || (isFinal() && stored.isTold()),
    viewers: () => pipeline.fanOut.size(),
    now,
  });
  const observeState = createStateObserver({
    standing,
    attempt,
    ownership,
    run,
    row: rows,
    onEnded: () => void stored.tell().then(waits.changed),
    onChanged() {
      waits.changed();
      idle.beginAnew();
    },
    log,
  });
  const leave = deps.lives.enter(threadId, {
    db,
    client,
    ownership,
    pipeline,
    proposalId,
    input,
    traceId,
    traceparent,
    maxAttempts,
    cancelGraceMs,
    current,
    awaited: waits.awaited,
    onFact: run.observe,
    onReadError: (error) => {
      log.error({ err: error }, 'a pipeline broke');
      deps.onBroken(threadId, error);
    },
    newId: randomUUID,
    sleep,
    retryDelayMs,
    awayDelayMs,
    onCleanUpDue,
  });
  return { machine, standing, pipeline, waits, idle, ownership, rows, observeState, leave };
}
