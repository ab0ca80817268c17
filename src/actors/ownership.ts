import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import type { Config } from '../config.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { clearTakenOver } from '../db/threads.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent } from '../telemetry/tracing.js';
import { createGiveUpUnreached } from './give-up-unreached.js';
import type { Pauses } from './pauses.js';
import { createPhaseNotes, type PhaseNotes } from './phase-notes.js';
import type { ProposalEvent } from './proposal-types.js';
import type { ThreadStanding } from './thread-standing.js';
import { createThreadWatchdog, type ThreadWatchdog } from './thread-watchdog.js';
import { createTransitionJournal, type TransitionJournal } from './transition-journal.js';

export interface OwnershipDeps {
  db: CommonQueryMethods;
  node: string;
  client: Pick<DeepAgentsRuntimeClient, 'silentMs'>;
  config: Pick<Config, 'runs' | 'database'>;
  pauses: Pick<Pauses, 'sleep' | 'awayDelayMs'>;
  standing: Pick<ThreadStanding, 'state' | 'namedThreadId'>;
  attempt: () => number;
  /** Reads of the runtime's socket that brought frames, ever. */
  reads: () => number;
  /** Of the request that asked for the run: its commits are part of that trace. */
  traceparent: string | null;
  /** Whether another replica that lives reaches the runtime. */
  anotherReaches: () => boolean;
  onGivenUp: (threadId: string) => void;
  /** A commit found a newer row, which is ours still. */
  onMoved: (row: ThreadRow) => void;
  send: (event: ProposalEvent) => void;
  /** Monotonic milliseconds. */
  now: () => number;
  metrics: Metrics;
  log: Logger;
}

/** What only the owner of a thread does: it makes the commits, notes the phases, watches the clock, and may give up. */
export interface Ownership {
  journal: TransitionJournal;
  notes: PhaseNotes;
  watchdog: ThreadWatchdog;
  /** The row names this replica, which has been a reader until now. */
  adopt(row: ThreadRow): void;
}

/** A reader has these parts, too: it may become the owner at any time. */
export function createOwnership(deps: OwnershipDeps, row: ThreadRow): Ownership {
  const { db, node, log, now, metrics, attempt, send, client, config } = deps;
  const { state, namedThreadId } = deps.standing;
  const journal = createTransitionJournal(
    {
      db,
      node,
      newId: randomUUID,
      sleep: deps.pauses.sleep,
      delayMs: deps.pauses.awayDelayMs,
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
    onGivenUp: () => deps.onGivenUp(row.threadId),
    send,
  });
  const watchdog = createThreadWatchdog(
    {
      now,
      idleMs: config.runs.idleMs,
      state,
      reads: deps.reads,
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
  return {
    journal,
    notes,
    watchdog,
    adopt(taken) {
      journal.adopt(taken);
      notes.adopt(taken);
      watchdog.own(taken);
    },
  };
}
