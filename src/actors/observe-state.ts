import type { Logger } from '../telemetry/logger.js';
import type { RowObserver } from './observe-row.js';
import type { RunObserver } from './observe-run.js';
import type { Ownership } from './ownership.js';
import type { ProposalState } from './proposal-types.js';
import type { ThreadStanding } from './thread-standing.js';

export interface StateObserverDeps {
  standing: Pick<ThreadStanding, 'state' | 'isFinal'>;
  attempt: () => number;
  ownership: Pick<Ownership, 'notes' | 'watchdog'>;
  run: Pick<RunObserver, 'forget'>;
  row: Pick<RowObserver, 'beginFollowing'>;
  /** Completed, failed or resolved, by our commit or by somebody else's. */
  onEnded: () => void;
  /** The thread is in another state, and what follows from it here has been done. */
  onChanged: () => void;
  log: Pick<Logger, 'info'>;
}

/** What follows when a thread's machine goes over to another state. The machine tells its snapshots, not its steps. */
export function createStateObserver(deps: StateObserverDeps): () => void {
  const { standing, run, row, attempt, onEnded, onChanged, log } = deps;
  const { notes, watchdog } = deps.ownership;
  let before: ProposalState | null = null;
  return () => {
    const now = standing.state();
    if (now === before) return;
    const left = before;
    before = now;
    log.info({ from: left, to: now, attempt: attempt() }, 'thread state');
    if (now === 'streaming' || now === 'reconnecting') notes.phase(now, `run.${now}`);
    if (now === 'invoking' && left === 'retrying') notes.phase('invoking', 'attempt.begun');
    if (now === 'retrying') run.forget();
    // A reader that becomes the owner has heard the attempt already.
    if (now === 'invoking' && left !== 'following') watchdog.attemptBegins();
    if (now === 'following' && left !== null) row.beginFollowing();
    if (standing.isFinal()) onEnded();
    onChanged();
  };
}
