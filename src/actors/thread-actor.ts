import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import { createActor } from 'xstate';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import type { FrameCounts } from '../streams/frame-counts.js';
import type { WindowBudget } from '../streams/replay-window.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import type { RuntimeFrames } from '../streams/runtime-socket.js';
import type { Publish, Viewer, ViewerPosition } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createActorPipeline, epochOf } from './actor-pipeline.js';
import { createIdleTime } from './idle-time.js';
import { createRowObserver } from './observe-row.js';
import { createRunObserver } from './observe-run.js';
import { createStateObserver } from './observe-state.js';
import { createOwnership } from './ownership.js';
import { createPauses } from './pauses.js';
import { isPoisoned } from './poison.js';
import type { ProposalLives } from './proposal-actors.js';
import type { ProposalEvent, ProposalState, Role } from './proposal-types.js';
import type { RunInput } from './run-input.js';
import { createStoredEnd } from './stored-end.js';
import type { Attachment, StartOutcome } from './thread-directory.js';
import { createThreadStanding } from './thread-standing.js';
import { createThreadWaits } from './thread-waits.js';
import type { TranscriptKeeper } from './transcript-keeper.js';
import { createViewerEntrance } from './viewer-entrance.js';
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
  random: () => number;
  /** Monotonic milliseconds. */
  now: () => number;
  onCleanUpDue: () => void;
  /** Whether another replica that lives reaches the runtime. */
  anotherReaches: () => boolean;
  /** The thread was given up to whoever reaches the runtime; this replica is a reader of it now. */
  onGivenUp: (threadId: string) => void;
  /** The actor broke: it is to be forgotten, and revived from its row. */
  onBroken: (threadId: string, error: unknown) => void;
}

/** One live thread on this replica. */
export interface ThreadActor {
  readonly threadId: string;
  readonly proposalId: string;
  state(): ProposalState;
  role(): Role;
  /** Resolves with the first invoke's outcome, or `unknown` after the time that the request waits. */
  started(waitMs: number): Promise<StartOutcome>;
  /** Resolves when the run is being read, is over, or after that time. */
  opened(waitMs: number): Promise<void>;
  attach(viewer: Viewer, position: ViewerPosition): Promise<Attachment>;
  /** The row as it was just read. */
  observe(row: ThreadRow): void;
  /** The journal's version of the row: a newer one in the database is news. */
  version(): number;
  viewers(): Iterable<Viewer>;
  accessVersion(): number;
  /** Once a second: stalled runs, passed deadlines, viewers that take nothing. `late`: the clock had stood still. */
  tick(late: boolean): void;
  /** Nothing to do and nobody to serve since then (monotonic ms); null while there is. */
  idleSince(): number | null;
  /** Resolves when no end is being committed, or after that time. */
  ended(waitMs: number): Promise<void>;
  /** Makes no commit any more and reads nothing; viewers stay. */
  halt(): void;
  /** Halts, and closes viewers with 1012. */
  stop(): void;
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

export function createThreadActor(
  deps: ThreadActorDeps,
  row: ThreadRow,
  options: ThreadActorOptions,
): ThreadActor {
  const { config } = deps;
  const { threadId, proposalId } = row;
  const log = deps.log.child({ thread_id: threadId, proposal_id: proposalId });
  const current = { attempt: row.attempt, jobId: row.jobId };
  const attempt = () => current.attempt;
  const pauses = createPauses({ runs: config.runs, random: deps.random });
  const { sleep, awayDelayMs } = pauses;

  let stopped = false;
  const isStopped = () => stopped;

  const actor = createActor(deps.lives.machine, {
    input: {
      proposalId,
      threadId,
      attempt: row.attempt,
      maxAttempts: config.runs.maxAttempts,
      jobId: row.jobId,
      runtimeThreadId: row.runtimeThreadId,
      role: options.role,
      status: row.status,
      awaited: options.awaited,
      cancelled: row.cancelRequestedAt !== null,
      poisoned: isPoisoned(row),
    },
  });
  const standing = createThreadStanding({
    snapshot: () => actor.getSnapshot(),
    row: () => rows.seen(),
    jobId: () => current.jobId,
  });
  const { state, isFinal, runtimeThreadId } = standing;
  const pipeline = createActorPipeline(
    {
      ...deps,
      log,
      pauses,
      run: () => ({ attempt: current.attempt, threadId: runtimeThreadId() }),
      isFinal: () => rows.seen().status !== 'processing' || isFinal(),
      isStopped,
    },
    row,
    options.role,
  );
  const waits = createThreadWaits({
    state,
    isRefused: standing.isRefused,
    isKnown: pipeline.known,
    isStopped,
    awaited: options.awaited,
    now: deps.now,
  });
  const send = (event: ProposalEvent) => actor.send(event);
  const ownership = createOwnership(
    {
      ...deps,
      log,
      pauses,
      pipeline,
      standing,
      attempt,
      ending: () => run.ending(),
      nobodyWaits: () => stopped || rows.seen().cancelRequestedAt !== null,
      traceparent: options.traceparent,
      onMoved: (moved) => rows.observe(moved),
      send,
    },
    row,
  );
  const { journal, notes, watchdog } = ownership;
  const run = createRunObserver({ state, notes, onOpened: waits.changed });
  const leave = deps.lives.enter(threadId, {
    db: deps.db,
    client: deps.client,
    ownership,
    pipeline,
    proposalId,
    input: options.input,
    traceId: options.traceId,
    traceparent: options.traceparent,
    maxAttempts: config.runs.maxAttempts,
    cancelGraceMs: config.runs.cancelGraceMs,
    current,
    awaited: waits.awaited,
    onFact: run.observe,
    onReadError: (error) => {
      log.error({ err: error }, 'a pipeline broke');
      deps.onBroken(threadId, error);
    },
    newId: randomUUID,
    ...pauses,
    onCleanUpDue: deps.onCleanUpDue,
  });
  const stored = createStoredEnd({
    db: deps.db,
    proposalId,
    pipeline,
    sleep,
    delayMs: awayDelayMs,
    now: deps.now,
    isStopped,
    log,
  });
  const rows = createRowObserver(
    {
      node: deps.node,
      maxAttempts: config.runs.maxAttempts,
      ownership,
      pipeline,
      current,
      state,
      context: () => actor.getSnapshot().context,
      send,
      stored,
    },
    row,
  );

  const idle = createIdleTime({
    // A reader without viewers reads for nobody; its row is looked at again when somebody comes, or it is taken over.
    isAtRest: () => state() === 'following' || (isFinal() && stored.isTold()),
    viewers: () => pipeline.fanOut.size(),
    now: deps.now,
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

  actor.subscribe({
    next: observeState,
    error: (error) => {
      log.error({ err: error }, 'a thread actor broke');
      deps.onBroken(threadId, error);
    },
  });
  actor.start();
  observeState();

  function halt(): void {
    stopped = true;
    actor.stop();
    journal.abort();
    leave();
    waits.changed();
  }

  const attach = createViewerEntrance({
    pipeline,
    facts: standing.facts,
    isFinal,
    isStopped,
    rowEpoch: () => epochOf(rows.seen()),
    happens: waits.happens,
    sleep,
    now: deps.now,
    // A reader's socket to the run is as good as the owner's.
    sendToRun: (message) => (state() === 'streaming' || state() === 'following') && pipeline.send(message),
  });

  return {
    threadId,
    proposalId,
    state,
    role: standing.role,
    started: waits.started,
    opened: waits.opened,
    ended: waits.ended,
    attach: (viewer, position) => idle.serving(attach(viewer, position)),
    observe: rows.observe,
    version: () => Math.max(journal.version(), rows.seen().version),
    viewers: () => pipeline.fanOut.viewers(),
    accessVersion: () => rows.seen().accessVersion,
    tick(late) {
      pipeline.fanOut.sweep(deps.now());
      if (!isFinal() && state() !== 'following') watchdog.tick(late);
    },
    idleSince: idle.since,
    halt,
    stop() {
      halt();
      pipeline.close();
    },
  };
}
