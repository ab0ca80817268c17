import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { ProposalPhase, ProposalStatus } from '@ide-orchestrator/protocol';
import { firstValueFrom, race, Subject, timer } from 'rxjs';
import type { CommonQueryMethods } from 'slonik';
import { createActor } from 'xstate';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { clearTakenOver } from '../db/threads.js';
import { backOffDelayMs } from '../streams/back-off.js';
import type { FrameCounts } from '../streams/frame-counts.js';
import type { WindowBudget } from '../streams/replay-window.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import type { RuntimeFrames } from '../streams/runtime-socket.js';
import type { LifecycleFact, RunEnding } from '../streams/stream-signals.js';
import { createThreadPipeline } from '../streams/thread-pipeline.js';
import type { Publish, Viewer, ViewerPosition } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent } from '../telemetry/tracing.js';
import { createDroppedEnd } from './dropped-end.js';
import { createGiveUpUnreached } from './give-up-unreached.js';
import { createRowObserver } from './observe-row.js';
import { createOlderFrames } from './older-frames.js';
import { createPhaseNotes } from './phase-notes.js';
import { isPoisoned } from './poison.js';
import type { ProposalLives } from './proposal-actors.js';
import type { ProposalState, Role } from './proposal-types.js';
import type { RunInput } from './run-input.js';
import { createStoredEnd } from './stored-end.js';
import type { Attachment, StartOutcome } from './thread-directory.js';
import { createThreadWatchdog } from './thread-watchdog.js';
import type { TranscriptKeeper } from './transcript-keeper.js';
import { createTransitionJournal } from './transition-journal.js';
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
  givingUp: (threadId: string) => { settled(happened: boolean): void };
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

/** The epoch that a row names. */
const epochOf = (row: ThreadRow): string => row.finalEpoch ?? `${row.attempt}.${row.runtimeEpoch ?? 1}`;

export function createThreadActor(
  deps: ThreadActorDeps,
  row: ThreadRow,
  options: ThreadActorOptions,
): ThreadActor {
  const { config, metrics } = deps;
  const { threadId, proposalId } = row;
  const log = deps.log.child({ thread_id: threadId, proposal_id: proposalId });
  const current = { attempt: row.attempt, jobId: row.jobId };
  const changed = new Subject<void>();
  const sleep = async (milliseconds: number, signal?: AbortSignal) => {
    await wait(milliseconds, undefined, signal ? { signal, ref: false } : { ref: false }).catch(
      () => undefined,
    );
  };
  const awayDelayMs = (failures: number) =>
    10 +
    backOffDelayMs(failures, {
      baseMs: config.runs.reconnectBaseMs,
      maxMs: config.runs.reconnectMaxMs,
      random: deps.random,
    });

  let awaited = options.awaited;
  let ending: RunEnding | null = null;
  let stopped = false;
  let idleFrom: number | null = deps.now();
  let settledHere = false;
  /** Viewers that are being let in: what they wait for may take seconds. */
  let attaching = 0;

  const pipeline = createThreadPipeline({
    threadId,
    firstEpoch: '1.1',
    epoch: epochOf(row),
    readBefore: options.role === 'reader' || row.runtimeThreadId !== null ? row.attempt : null,
    runtimeFrames: deps.runtimeFrames,
    client: deps.client,
    windowBudget: deps.windowBudget,
    older: createOlderFrames({
      db: deps.db,
      runtimeLog: deps.runtimeLog,
      proposalId,
      run: () => ({ attempt: current.attempt, threadId: runtimeThreadId() }),
      isFinal: () => observer.seen().status !== 'processing' || isFinal() || pipeline.finished(),
      isStopped: () => stopped,
      sleep,
      now: deps.now,
      log,
    }),
    publish: deps.publish,
    viewerBudgetBytes: config.viewers.budgetBytes,
    viewerStuckMs: config.viewers.stuckMs,
    frameCounts: deps.frameCounts,
    reconnectDelayMs: awayDelayMs,
    sleep,
    now: deps.now,
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
  const journal = createTransitionJournal(
    {
      db: deps.db,
      node: deps.node,
      newId: randomUUID,
      sleep,
      delayMs: awayDelayMs,
      queryDeadlineMs: config.database.queryDeadlineMs,
      onMoved: (moved) => observer.observe(moved),
      trace: contextFromTraceparent(options.traceparent),
      log,
    },
    row,
  );
  /** Nobody waits for what the runtime has to say any more: the actor stops, or a cancel decides. */
  const nobodyWaits = () => stopped || observer.seen().cancelRequestedAt !== null;
  const askState = () => deps.client.getState(runtimeThreadId());
  const notes = createPhaseNotes(
    {
      db: deps.db,
      journal,
      metrics,
      log,
      attempt: () => current.attempt,
      runtimeThreadId: () => actor.getSnapshot().context.runtimeThreadId,
      onNews: (outcome) =>
        outcome.kind === 'lost'
          ? actor.send({ type: 'row.lost' })
          : actor.send({ type: 'row.finished', status: outcome.row.status }),
    },
    row,
  );
  const watchdog = createThreadWatchdog(
    {
      now: deps.now,
      idleMs: config.runs.idleMs,
      state,
      reads: pipeline.reads,
      runtimeSilentMs: deps.client.silentMs,
      onStalled: () => actor.send({ type: 'runtime.stalled' }),
      onDeadline: () => actor.send({ type: 'deadline.passed' }),
      onProven: () =>
        void journal.append(
          (fence) => clearTakenOver(deps.db, fence),
          (now) => now.takenOver > 0,
        ),
      onUnreached: () => void giveUpUnreached(),
    },
    row,
  );
  const leave = deps.lives.enter(threadId, {
    db: deps.db,
    client: deps.client,
    journal,
    pipeline,
    settle: {
      db: deps.db,
      journal,
      pipeline,
      proposalId,
      from: notes.from,
      attempt: () => current.attempt,
      ending: () => ending,
      askState,
      sleep,
      delayMs: awayDelayMs,
      pastDeadline: () => nobodyWaits() || watchdog.pastDeadline(),
      mayAskAgain: () => !nobodyWaits() && deps.now() < watchdog.askUntil(),
      allowed: config.runs,
      onCommitted(status, code) {
        notes.end(status, code);
        if (status === 'failed') deps.onCleanUpDue();
      },
      onTranscriptLacking(epoch, upTo) {
        const { held } = pipeline;
        const generation = journal.generation();
        void deps.transcripts.complete({
          proposalId,
          runtimeThreadId: runtimeThreadId(),
          epoch,
          generation,
          upTo,
          held,
        });
      },
    },
    waitingCommits: deps.waitingCommits,
    end: createDroppedEnd({
      pipeline,
      ending: () => ending,
      askState,
      sleep,
      delayMs: awayDelayMs,
      isStopped: () => nobodyWaits() || watchdog.pastDeadline(),
      log,
    }),
    proposalId,
    input: options.input,
    traceId: options.traceId,
    traceparent: options.traceparent,
    maxAttempts: config.runs.maxAttempts,
    cancelGraceMs: config.runs.cancelGraceMs,
    current,
    awaited: () => awaited,
    onFact: hearFact,
    onReadError: (error) => {
      log.error({ err: error }, 'a pipeline broke');
      deps.onBroken(threadId, error);
    },
    from: notes.from,
    newId: randomUUID,
    sleep,
    retryDelayMs: (attempt) =>
      backOffDelayMs(attempt - 1, {
        baseMs: config.runs.retryBaseMs,
        maxMs: config.runs.retryMaxMs,
        random: deps.random,
      }),
    awayDelayMs,
    onRetrying: notes.retrying,
    onCleanUpDue: deps.onCleanUpDue,
  });
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
  const giveUpUnreached = createGiveUpUnreached({
    db: deps.db,
    node: deps.node,
    journal,
    notes,
    attempt: () => current.attempt,
    log,
    runtimeSilentMs: deps.client.silentMs,
    anotherReaches: deps.anotherReaches,
    givingUp: () => deps.givingUp(threadId),
    send: (event) => actor.send(event),
  });
  const stored = createStoredEnd({
    db: deps.db,
    proposalId,
    pipeline,
    sleep,
    delayMs: awayDelayMs,
    now: deps.now,
    isStopped: () => stopped,
    log,
  });
  const observer = createRowObserver(
    {
      node: deps.node,
      maxAttempts: config.runs.maxAttempts,
      journal,
      notes,
      pipeline,
      watchdog,
      current,
      state,
      context: () => actor.getSnapshot().context,
      send: (event) => actor.send(event),
      onEndedElsewhere: () =>
        void stored.caughtUp().then((first) => {
          if (first) actor.send({ type: 'row.finished', status: observer.seen().status });
        }),
    },
    row,
  );

  /** The run as the runtime names it. */
  function runtimeThreadId(): string {
    return actor.getSnapshot().context.runtimeThreadId ?? current.jobId;
  }

  function state(): ProposalState {
    const { value } = actor.getSnapshot();
    return (typeof value === 'string' ? value : value.live) as ProposalState;
  }

  const isFinal = () => actor.getSnapshot().hasTag('final');
  const phase = (): ProposalPhase | null => {
    const now = state();
    if (isFinal()) return null;
    if (now === 'following') return observer.seen().phase;
    return now === 'cancelling' ? 'streaming' : (now as ProposalPhase);
  };
  const status = (): ProposalStatus => (isFinal() ? (state() as ProposalStatus) : 'processing');

  let before: ProposalState | null = null;
  function observeState(): void {
    const now = state();
    if (now === before) return;
    const left = before;
    before = now;
    log.info({ from: left, to: now, attempt: current.attempt }, 'thread state');
    if (now === 'streaming' || now === 'reconnecting') notes.phase(now, `run.${now}`);
    if (now === 'invoking' && left === 'retrying') notes.phase('invoking', 'attempt.begun');
    if (now === 'retrying') ending = null;
    // A reader that becomes the owner has heard the attempt already.
    if (now === 'invoking' && left !== 'following') watchdog.attemptBegins();
    if (now === 'following' && left !== null) observer.beginFollowing();
    if (isFinal()) void reachEnd();
    changed.next();
    idleFrom = null;
  }

  function hearFact(fact: LifecycleFact): void {
    if (fact.type === 'runtime.ended' || fact.type === 'runtime.failed') ending = fact.ending;
    if (fact.type !== 'runtime.opened') return;
    changed.next();
    if (state() !== 'following') notes.epoch(fact.epoch.slice(fact.epoch.indexOf('.') + 1));
  }

  /** Completed, failed or resolved, by our commit or by somebody else's. */
  async function reachEnd(): Promise<void> {
    await stored.tell();
    settledHere = true;
    changed.next();
  }

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
    changed.next();
  }

  /** Waits for the next thing that happens, or for so long. */
  const happens = (milliseconds: number) => firstValueFrom(race(changed, timer(Math.max(0, milliseconds))));

  const attach = createViewerEntrance({
    pipeline,
    facts: () => ({ thread_id: threadId, proposal_id: proposalId, status: status(), phase: phase() }),
    isFinal,
    isStopped: () => stopped,
    rowEpoch: () => epochOf(observer.seen()),
    happens,
    sleep,
    now: deps.now,
    // A reader's socket to the run is as good as the owner's.
    sendToRun: (message) => (state() === 'streaming' || state() === 'following') && pipeline.send(message),
  });

  return {
    threadId,
    proposalId,
    state,
    role: () => (state() === 'following' ? 'reader' : 'owner'),
    async started(waitMs) {
      const until = deps.now() + waitMs;
      while (state() === 'invoking' && deps.now() < until && !stopped) {
        await happens(until - deps.now());
      }
      while (state() === 'finalizing' && deps.now() < until && !stopped) await happens(until - deps.now());
      awaited = false;
      const { verdict } = actor.getSnapshot().context;
      if (verdict?.kind === 'refused') return 'refused';
      return state() === 'invoking' ? 'unknown' : 'started';
    },
    async opened(waitMs) {
      const until = deps.now() + waitMs;
      const opening = () => state() === 'invoking' || (state() === 'streaming' && !pipeline.known());
      while (opening() && !stopped && deps.now() < until) await happens(until - deps.now());
    },
    attach(viewer, position) {
      attaching++;
      return attach(viewer, position).finally(() => {
        attaching--;
      });
    },
    observe: observer.observe,
    version: () => Math.max(journal.version(), observer.seen().version),
    viewers: () => pipeline.fanOut.viewers(),
    accessVersion: () => observer.seen().accessVersion,
    tick(late) {
      pipeline.fanOut.sweep(deps.now());
      if (!isFinal() && state() !== 'following') watchdog.tick(late);
    },
    idleSince() {
      // A reader without viewers reads for nobody; its row is looked at again when somebody comes, or it is taken over.
      const atRest = state() === 'following' || (isFinal() && settledHere);
      if (!atRest || attaching > 0 || pipeline.fanOut.size() > 0) {
        idleFrom = null;
        return null;
      }
      idleFrom ??= deps.now();
      return idleFrom;
    },
    async ended(waitMs) {
      const until = deps.now() + waitMs;
      while (state() === 'finalizing' && deps.now() < until) await happens(until - deps.now());
    },
    halt,
    stop() {
      halt();
      pipeline.close();
    },
  };
}
