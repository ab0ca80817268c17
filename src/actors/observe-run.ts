import type { LifecycleFact, RunEnding } from '../streams/stream-signals.js';
import type { PhaseNotes } from './phase-notes.js';
import type { ProposalState } from './proposal-types.js';

export interface RunObserverDeps {
  state: () => ProposalState;
  notes: Pick<PhaseNotes, 'epoch'>;
  onOpened: () => void;
}

/** What is kept of a run's facts beside the machine: how the runtime ended it, and which log it is. */
export interface RunObserver {
  /** A fact, before the machine hears it. */
  observe(fact: LifecycleFact): void;
  /** How the runtime ended the attempt, where it did. */
  ending(): RunEnding | null;
  /** The attempt is over, and another one follows. */
  forget(): void;
}

export function createRunObserver({ state, notes, onOpened }: RunObserverDeps): RunObserver {
  let ending: RunEnding | null = null;
  return {
    observe(fact) {
      if (fact.type === 'runtime.ended' || fact.type === 'runtime.failed') ending = fact.ending;
      if (fact.type !== 'runtime.opened') return;
      onOpened();
      // The audit is the owner's to write.
      if (state() !== 'following') notes.epoch(fact.epoch.slice(fact.epoch.indexOf('.') + 1));
    },
    ending: () => ending,
    forget() {
      ending = null;
    },
  };
}
