import { firstValueFrom, race, Subject, timer } from 'rxjs';
import type { ProposalState } from './proposal-types.js';
import type { StartOutcome } from './thread-directory.js';

export interface ThreadWaitsDeps {
  state: () => ProposalState;
  /** The first invoke was refused for certain; it may be that nobody was told, and the refusal is not committed. */
  isRefused: () => boolean;
  /** That is committed. */
  isRefusedForGood: () => boolean;
  /** Whether this replica has heard of the run's log. */
  isKnown: () => boolean;
  isStopped: () => boolean;
  /** The request that made the proposal waits for the first invoke. */
  awaited: boolean;
  /** Monotonic milliseconds. */
  now: () => number;
}

/** What others wait for in the life of a thread: each wait looks again whenever something has happened. */
export interface ThreadWaits {
  /** Something has happened: the state has changed, the run is open, the actor stops. */
  changed(): void;
  /** Resolves with the next thing that happens, or after so many milliseconds. */
  happens(milliseconds: number): Promise<unknown>;
  /** Whether the request that made the proposal waits still. */
  awaited(): boolean;
  /** Resolves with the first invoke's outcome, or what is known of it after the time that the request waits. */
  started(waitMs: number): Promise<StartOutcome>;
  /** Resolves when the run is being read, is over, or after that time. */
  opened(waitMs: number): Promise<void>;
  /** Resolves when no end is being committed, or after that time. */
  ended(waitMs: number): Promise<void>;
}

export function createThreadWaits(deps: ThreadWaitsDeps): ThreadWaits {
  const { state, isStopped, now } = deps;
  const changes = new Subject<void>();
  let { awaited } = deps;

  const happens = (milliseconds: number) => firstValueFrom(race(changes, timer(Math.max(0, milliseconds))));

  async function whilst(lasts: () => boolean, until: number): Promise<void> {
    while (lasts() && now() < until) await happens(until - now());
  }

  return {
    changed: () => changes.next(),
    happens,
    awaited: () => awaited,
    async started(waitMs) {
      const until = now() + waitMs;
      await whilst(() => (state() === 'invoking' || state() === 'finalizing') && !isStopped(), until);
      awaited = false;
      if (deps.isRefusedForGood()) return 'refused';
      if (state() === 'finalizing' && deps.isRefused()) return 'refusing';
      return state() === 'invoking' ? 'unknown' : 'started';
    },
    opened: (waitMs) =>
      whilst(
        () => (state() === 'invoking' || (state() === 'streaming' && !deps.isKnown())) && !isStopped(),
        now() + waitMs,
      ),
    ended: (waitMs) => whilst(() => state() === 'finalizing', now() + waitMs),
  };
}
