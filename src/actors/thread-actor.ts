import type { ThreadRow } from '../db/row-schemas.js';
import type { Viewer, ViewerPosition } from '../streams/viewer.js';
import { epochOf } from './actor-pipeline.js';
import type { ProposalState, Role } from './proposal-types.js';
import type { Attachment, StartOutcome } from './thread-directory.js';
import { createThreadParts, type ThreadActorDeps, type ThreadActorOptions } from './thread-parts.js';
import { createViewerEntrance } from './viewer-entrance.js';

/** One live thread on this replica. */
export interface ThreadActor {
  readonly threadId: string;
  readonly proposalId: string;
  state(): ProposalState;
  role(): Role;
  /** Resolves with the first invoke's outcome, or what is known of it after the time that the request waits. */
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

/** Makes a thread's actor from its row, and starts it. */
export function createThreadActor(
  deps: ThreadActorDeps,
  row: ThreadRow,
  options: ThreadActorOptions,
): ThreadActor {
  const { now } = deps;
  const { threadId, proposalId } = row;
  const log = deps.log.child({ thread_id: threadId, proposal_id: proposalId });
  let stopped = false;
  const isStopped = () => stopped;
  const parts = createThreadParts(deps, row, options, { log, isStopped });
  const { machine, standing, pipeline, waits, idle, ownership, rows } = parts;
  const { state, isFinal } = standing;
  const attach = createViewerEntrance({
    pipeline,
    facts: standing.facts,
    isFinal,
    isStopped,
    rowEpoch: () => epochOf(rows.seen()),
    happens: waits.happens,
    sleep: deps.pauses.sleep,
    now,
    // A reader's socket to the run is as good as the owner's.
    sendToRun: (message) => (state() === 'streaming' || state() === 'following') && pipeline.send(message),
  });

  machine.subscribe({
    next: parts.observeState,
    error: (error) => {
      log.error({ err: error }, 'a thread actor broke');
      deps.onBroken(threadId, error);
    },
  });
  machine.start();
  parts.observeState();

  function halt(): void {
    stopped = true;
    machine.stop();
    ownership.journal.abort();
    parts.leave();
    waits.changed();
  }

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
    version: () => Math.max(ownership.journal.version(), rows.seen().version),
    viewers: () => pipeline.fanOut.viewers(),
    accessVersion: () => rows.seen().accessVersion,
    tick(late) {
      pipeline.fanOut.sweep(now());
      if (!isFinal() && state() !== 'following') ownership.watchdog.tick(late);
    },
    idleSince: idle.since,
    halt,
    stop() {
      halt();
      pipeline.close();
    },
  };
}
