import type { ThreadRow } from '../db/row-schemas.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Ownership } from './ownership.js';
import { isPoisoned } from './poison.js';
import type { ProposalContext, ProposalEvent, ProposalState } from './proposal-types.js';
import type { StoredEnd } from './stored-end.js';

export interface RowObserverDeps {
  node: string;
  maxAttempts: number;
  ownership: Pick<Ownership, 'journal' | 'watchdog' | 'adopt'>;
  pipeline: Pick<ThreadPipeline, 'beginAttempt'>;
  /** The attempt that the row names; moves with the row. */
  current: { attempt: number; jobId: string };
  state: () => ProposalState;
  context: () => ProposalContext;
  send: (event: ProposalEvent) => void;
  stored: Pick<StoredEnd, 'caughtUp'>;
}

/** What a row means to a thread's actor when it is read again: it says who owns it, which attempt runs, how it ended. */
export interface RowObserver {
  observe(row: ThreadRow): void;
  /** What was seen while this replica was the owner, or thought so, was no reader's look: the next one is news. */
  beginFollowing(): void;
  /** The newest row that was read. */
  seen(): ThreadRow;
}

export function createRowObserver(deps: RowObserverDeps, row: ThreadRow): RowObserver {
  const { ownership, current, send } = deps;
  const { journal, watchdog } = ownership;
  let seen = row;

  function follow(now: ThreadRow, ours: boolean): void {
    const { attempt, jobId, runtimeThreadId } = now;
    const context = deps.context();
    const advanced = attempt !== context.attempt;
    const named = runtimeThreadId !== null && runtimeThreadId !== (context.runtimeThreadId ?? jobId);
    Object.assign(current, { attempt, jobId });
    if (advanced) {
      watchdog.attemptBegins();
      const told = { attempt, max: deps.maxAttempts, delay_ms: 0, epoch: `${attempt}.1` };
      deps.pipeline.beginAttempt(attempt, { event_type: 'on_retry', data: told });
    }
    if (ours) {
      ownership.adopt(now);
      send({ type: 'row.gained', attempt, jobId, runtimeThreadId, poisoned: isPoisoned(now) });
    } else if (advanced || named) {
      send({ type: 'row.advanced', attempt, jobId, runtimeThreadId });
    }
  }

  /** A reader's viewers get what lies below the end before they get the end. */
  async function endBehindOwner(): Promise<void> {
    if (await deps.stored.caughtUp()) send({ type: 'row.finished', status: seen.status });
  }

  return {
    seen: () => seen,
    beginFollowing() {
      seen = { ...seen, version: 0 };
    },
    observe(now) {
      // Two looks at once may come back in either order, and behind a commit of ours: nothing goes backwards.
      if (now.version < Math.max(seen.version, journal.version())) return;
      seen = now;
      watchdog.observe(now);
      if (now.status !== 'processing') {
        if (deps.state() === 'following') return void endBehindOwner();
        return send({ type: 'row.finished', status: now.status });
      }
      const ours = now.ownerNode === deps.node;
      if (deps.state() === 'following') follow(now, ours);
      else if (!ours || now.ownerGeneration !== journal.generation()) send({ type: 'row.lost' });
      if (ours && now.cancelRequestedAt !== null && !deps.context().cancelled) {
        send({ type: 'cancel.requested' });
      }
    },
  };
}
