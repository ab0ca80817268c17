import { type ProposalPhase, type ProposalStatus, runErrors } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import type { ThreadRow } from '../db/row-schemas.js';
import { commitPhase } from '../db/run-progress.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { JournalOutcome, TransitionJournal } from './transition-journal.js';

export interface PhaseNotesDeps {
  db: CommonQueryMethods;
  journal: TransitionJournal;
  metrics: Metrics;
  log: Logger;
  attempt: () => number;
  runtimeThreadId: () => string | null;
  /** The row is not ours any more, or has ended. */
  onNews: (outcome: Extract<JournalOutcome, { kind: 'lost' | 'finished' }>) => void;
}

/** Where the audit of a run stands: what was noted last, and the transitions between its start and its end. */
export interface PhaseNotes {
  /** State of the audit that the next transition comes from. */
  from(): string;
  /** Notes a phase; nothing waits for the commit, later ones come after it. */
  phase(to: 'invoking' | 'streaming' | 'reconnecting', event: string): void;
  /** The runtime said which log this is; noted where it is news. `epoch` without the attempt. */
  epoch(epoch: string): void;
  /** The commit of another attempt is under way. */
  retrying(): void;
  /** The commit of the end is made. */
  end(status: 'completed' | 'failed', code: string | null): void;
  /** The row says where the audit stands: this replica has become its owner. */
  adopt(row: ThreadRow): void;
}

export function createPhaseNotes(deps: PhaseNotesDeps, row: ThreadRow): PhaseNotes {
  const { journal, metrics } = deps;
  let noted: ProposalPhase | ProposalStatus = row.phase ?? row.status;
  let runtimeEpoch = row.runtimeEpoch ?? '1';

  function note(to: 'invoking' | 'streaming' | 'reconnecting', event: string): void {
    const from = noted;
    noted = to;
    if (from !== to) metrics.actorTransitionsTotal.inc({ from, to });
    // An attempt that is about to be invoked has no run of the runtime's yet.
    const told = to === 'invoking' ? {} : { runtimeThreadId: deps.runtimeThreadId(), runtimeEpoch };
    void journal
      .append((fence) => commitPhase(deps.db, fence, { from, to, event, attempt: deps.attempt(), ...told }))
      .then((outcome) => {
        if (outcome.kind === 'lost' || outcome.kind === 'finished') deps.onNews(outcome);
      });
  }

  return {
    from: () => noted,
    phase(to, event) {
      if (noted !== to) note(to, event);
    },
    epoch(epoch) {
      if (epoch === runtimeEpoch) return;
      runtimeEpoch = epoch;
      note('streaming', 'runtime.opened');
    },
    retrying() {
      metrics.actorTransitionsTotal.inc({ from: noted, to: 'retrying' });
      noted = 'retrying';
      runtimeEpoch = '1';
    },
    end(status, code) {
      metrics.actorTransitionsTotal.inc({ from: noted, to: status });
      noted = status;
      const seconds = (Date.now() - Date.parse(row.createdAt)) / 1000;
      metrics.refinementDurationSeconds.observe({ status }, seconds);
      // A runtime's own codes are anything at all, an id too.
      if (code !== null) metrics.proposalFailuresTotal.inc({ code: code in runErrors ? code : 'other' });
      deps.log.info({ status, code, attempt: deps.attempt() }, 'proposal ended');
    },
    adopt(taken) {
      noted = taken.phase ?? taken.status;
      runtimeEpoch = taken.runtimeEpoch ?? '1';
    },
  };
}
