import type { ThreadRow } from '../db/row-schemas.js';
import type { ProposalState } from './proposal-types.js';

export interface ThreadWatchdogDeps {
  /** Monotonic milliseconds. */
  now: () => number;
  /** No frame for this long after the attempt's first one is a stalled run. */
  idleMs: number;
  state: () => ProposalState;
  /** Reads of the runtime's socket that brought frames, ever. */
  reads: () => number;
  /** For how long this replica has not reached the runtime; 0 while its last try did. */
  runtimeSilentMs: () => number;
  onStalled: () => void;
  onDeadline: () => void;
  /** The thread was taken over from dead replicas, and did not bring this one down. */
  onProven: () => void;
  /** The runtime has been out of reach for 15 s. */
  onUnreached: () => void;
}

/** What only the owner of a thread watches, and for as long as it is the owner. */
export interface ThreadWatchdog {
  /** The row as it was read: it says when the proposal's time is over. */
  observe(row: ThreadRow): void;
  /** This replica owns the thread from now on: all times begin anew. */
  own(row: ThreadRow): void;
  /** An attempt begins: its idle time counts from its first frame, since a run may wait for its turn. */
  attemptBegins(): void;
  /** A frame of the run was read, by whoever reads here. */
  read(): void;
  pastDeadline(): boolean;
  /** Until when (monotonic ms) a runtime that is away is asked for the end of a run that was overdue when it came here. */
  askUntil(): number;
  /** Once a second. `late`: it came more than 1 s late, so what waits to be heard may be older than the clock says. */
  tick(late: boolean): void;
}

const UNREACHED_MS = 15_000;
const PROVEN_MS = 10_000;
const OVERDUE_ASK_MS = 15_000;

/**
 * Times on the monotonic clock (`guarantees.md` 13, 14, 16). After a process stood still timers fire before the frames
 * that waited are heard: a late tick judges nothing, the next one does.
 */
export function createThreadWatchdog(deps: ThreadWatchdogDeps, row: ThreadRow): ThreadWatchdog {
  let deadline = 0;
  let askUntil = 0;
  let takenOver = 0;
  let ownedSince = 0;
  let readsAtOwning = 0;
  let readsOfEarlierAttempts = 0;
  let readsSeen = -1;
  let readsStoodSince = deps.now();
  let lostSince: number | null = null;

  function observe(now: ThreadRow): void {
    deadline = deps.now() + now.deadlineInMs;
  }

  function own(now: ThreadRow): void {
    observe(now);
    askUntil = now.deadlineInMs > 0 ? 0 : deps.now() + OVERDUE_ASK_MS;
    takenOver = now.takenOver;
    ownedSince = deps.now();
    readsAtOwning = deps.reads();
    readsSeen = -1;
    lostSince = null;
  }

  function prove(now: number): void {
    if (takenOver === 0) return;
    if (deps.reads() === readsAtOwning && now - ownedSince < PROVEN_MS) return;
    takenOver = 0;
    deps.onProven();
  }

  function watchIdle(now: number, state: ProposalState): void {
    const reads = deps.reads();
    if (reads !== readsSeen || state !== 'streaming' || reads === readsOfEarlierAttempts) {
      readsSeen = reads;
      readsStoodSince = now;
    } else if (now - readsStoodSince > deps.idleMs) {
      readsStoodSince = now;
      deps.onStalled();
    }
  }

  function watchReach(now: number, state: ProposalState): void {
    const lost = state === 'invoking' || state === 'reconnecting';
    lostSince = lost ? (lostSince ?? now) : null;
    if (lostSince === null || now - lostSince < UNREACHED_MS) return;
    if (deps.runtimeSilentMs() >= UNREACHED_MS) deps.onUnreached();
  }

  own(row);
  return {
    observe,
    own,
    attemptBegins() {
      readsOfEarlierAttempts = deps.reads();
    },
    read() {
      // At once: an owner may be killed any moment, for no fault of the thread's.
      if (takenOver > 0 && deps.state() !== 'following') prove(deps.now());
    },
    pastDeadline: () => deps.now() > deadline,
    askUntil: () => askUntil,
    tick(late) {
      const state = deps.state();
      if (late || state === 'finalizing') return;
      const now = deps.now();
      prove(now);
      watchIdle(now, state);
      watchReach(now, state);
      if (now > deadline) deps.onDeadline();
    },
  };
}
