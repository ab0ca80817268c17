import type { CommonQueryMethods } from 'slonik';
import { giveUp } from '../db/run-progress.js';
import type { Logger } from '../telemetry/logger.js';
import type { PhaseNotes } from './phase-notes.js';
import type { ProposalEvent } from './proposal-types.js';
import type { TransitionJournal } from './transition-journal.js';

export interface GiveUpDeps {
  db: CommonQueryMethods;
  node: string;
  journal: TransitionJournal;
  notes: Pick<PhaseNotes, 'from'>;
  attempt: () => number;
  log: Pick<Logger, 'warn'>;
  /** For how long this replica has not reached the runtime; 0 while its last try did. */
  runtimeSilentMs: () => number;
  /** Whether another replica that lives reaches the runtime. */
  anotherReaches: () => boolean;
  /** From before the commit, since its row can be read before its answer. */
  givingUp: () => { settled(happened: boolean): void };
  send: (event: ProposalEvent) => void;
}

/**
 * Gives a thread up to a replica that reaches the runtime, where there is one (`guarantees.md` 16). It uses up no
 * attempt: the same job is invoked by the next owner, and this replica reads on for its viewers as soon as it can.
 */
export function createGiveUpUnreached(deps: GiveUpDeps): () => Promise<void> {
  let underWay = false;
  return async () => {
    if (underWay || !deps.anotherReaches()) return;
    underWay = true;
    const move = { attempt: deps.attempt(), details: { node: deps.node, reason: 'runtime_unreached' } };
    const giving = deps.givingUp();
    const outcome = await deps.journal.append(
      (fence) => giveUp(deps.db, fence, { from: deps.notes.from(), ...move }),
      // The database may have been away for longer than the runtime.
      () => deps.runtimeSilentMs() > 0 && deps.anotherReaches(),
    );
    underWay = false;
    giving.settled(outcome.kind === 'committed');
    if (outcome.kind === 'finished') return deps.send({ type: 'row.finished', status: outcome.row.status });
    if (outcome.kind === 'committed') {
      deps.log.warn({ node: deps.node }, 'given up to a replica that reaches the runtime');
    }
    if (outcome.kind === 'committed' || outcome.kind === 'lost') deps.send({ type: 'row.lost' });
  };
}
