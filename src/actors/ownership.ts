import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { clearTakenOver } from '../db/threads.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { RunEnding } from '../streams/stream-signals.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent } from '../telemetry/tracing.js';
import { createEndCommit, type EndCommitDeps } from './commit-end.js';
import { createGiveUpUnreached } from './give-up-unreached.js';
import type { Pauses } from './pauses.js';
import { createPhaseNotes, type PhaseNotes } from './phase-notes.js';
import type { ProposalEvent, Settled, Verdict } from './proposal-types.js';
import type { ThreadStanding } from './thread-standing.js';
import { createThreadWatchdog, type ThreadWatchdog } from './thread-watchdog.js';
import { createTransitionJournal, type TransitionJournal } from './transition-journal.js';

export interface OwnershipDeps
  extends Pick<EndCommitDeps, 'waitingCommits' | 'transcripts' | 'awaited' | 'nobodyWaits' | 'onCleanUpDue'> {
  db: CommonQueryMethods;
  node: string;
  client: Pick<DeepAgentsRuntimeClient, 'getState' | 'pause' | 'silentMs'>;
  pipeline: ThreadPipeline;
  config: Pick<Config, 'runs' | 'database'>;
  pauses: Pick<Pauses, 'sleep' | 'awayDelayMs'>;
  standing: Pick<ThreadStanding, 'state' | 'namedThreadId' | 'runtimeThreadId'>;
  attempt: () => number;
  /** How the runtime ended the attempt, where it did. */
  ending: () => RunEnding | null;
  /** Of the request that asked for the run: its commits are part of that trace. */
  traceparent: string | null;
  /** Whether another replica that lives reaches the runtime. */
  anotherReaches: () => boolean;
  givingUp: (threadId: string) => { settled(happened: boolean): void };
  /** A commit found a newer row, which is ours still. */
  onMoved: (row: ThreadRow) => void;
  send: (event: ProposalEvent) => void;
  /** Monotonic milliseconds. */
  now: () => number;
  metrics: Metrics;
  log: Logger;
}

/** What only the owner of a thread does: it makes the commits of the run, watches its clock, and may give it up. */
export interface Ownership {
  journal: TransitionJournal;
  notes: PhaseNotes;
  watchdog: ThreadWatchdog;
  /** Commits the end that a verdict means, then tells it. */
  settle(verdict: Verdict): Promise<Settled>;
  /** The refusal of the first invoke is committed. */
  isRefused(): boolean;
  /** The row names this replica, which has been a reader until now. */
  adopt(row: ThreadRow): void;
}

/** A reader has these parts, too: it may become the owner at any time. */
export function createOwnership(deps: OwnershipDeps, row: ThreadRow): Ownership {
  const { db, node, log, now, metrics, attempt, send, client, config, pipeline, givingUp } = deps;
  const { threadId, proposalId } = row;
  const { sleep, awayDelayMs: delayMs } = deps.pauses;
  const { state, namedThreadId, runtimeThreadId } = deps.standing;
  const journal = createTransitionJournal(
    {
      db,
      node,
      newId: randomUUID,
      sleep,
      delayMs,
      queryDeadlineMs: config.database.queryDeadlineMs,
      onMoved: deps.onMoved,
      trace: contextFromTraceparent(deps.traceparent),
      log,
    },
    row,
  );
  const notes = createPhaseNotes(
    {
      db,
      journal,
      metrics,
      log,
      attempt,
      runtimeThreadId: namedThreadId,
      onNews: (outcome) =>
        send(
          outcome.kind === 'lost'
            ? { type: 'row.lost' }
            : { type: 'row.finished', status: outcome.row.status },
        ),
    },
    row,
  );
  const giveUpUnreached = createGiveUpUnreached({
    db,
    node,
    journal,
    notes,
    attempt,
    log,
    runtimeSilentMs: client.silentMs,
    anotherReaches: deps.anotherReaches,
    givingUp: () => givingUp(threadId),
    send,
  });
  const watchdog = createThreadWatchdog(
    {
      now,
      idleMs: config.runs.idleMs,
      state,
      reads: pipeline.reads,
      runtimeSilentMs: client.silentMs,
      onStalled: () => send({ type: 'runtime.stalled' }),
      onDeadline: () => send({ type: 'deadline.passed' }),
      onProven: () =>
        void journal.append(
          (fence) => clearTakenOver(db, fence),
          ({ takenOver }) => takenOver > 0,
        ),
      onUnreached: () => void giveUpUnreached(),
    },
    row,
  );
  let refused = false;
  const commitEnd = createEndCommit({
    db,
    client,
    journal,
    notes,
    watchdog,
    pipeline,
    waitingCommits: deps.waitingCommits,
    transcripts: deps.transcripts,
    proposalId,
    runtimeThreadId,
    attempt,
    ending: deps.ending,
    awaited: deps.awaited,
    nobodyWaits: deps.nobodyWaits,
    sleep: client.pause,
    delayMs,
    allowed: config.runs,
    onCleanUpDue: deps.onCleanUpDue,
    now,
    log,
  });
  return {
    journal,
    notes,
    watchdog,
    async settle(verdict) {
      const settled = await commitEnd(verdict);
      refused ||= verdict.kind === 'refused' && settled.kind === 'committed';
      return settled;
    },
    isRefused: () => refused,
    adopt(taken) {
      journal.adopt(taken);
      notes.adopt(taken);
      watchdog.own(taken);
    },
  };
}
