import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { Logger } from '../telemetry/logger.js';
import { createDroppedEnd } from './dropped-end.js';
import type { PhaseNotes } from './phase-notes.js';
import type { Settled, Verdict } from './proposal-types.js';
import { type SettleDeps, settleRun } from './settle-run.js';
import type { ThreadWatchdog } from './thread-watchdog.js';
import type { TranscriptKeeper } from './transcript-keeper.js';
import type { WaitingCommits } from './waiting-commits.js';

export interface EndCommitDeps
  extends Pick<
    SettleDeps,
    | 'db'
    | 'journal'
    | 'pipeline'
    | 'proposalId'
    | 'attempt'
    | 'ending'
    | 'sleep'
    | 'delayMs'
    | 'awaited'
    | 'allowed'
  > {
  client: Pick<DeepAgentsRuntimeClient, 'getState'>;
  /** The run as the runtime names it. */
  runtimeThreadId: () => string;
  notes: Pick<PhaseNotes, 'from' | 'end'>;
  watchdog: Pick<ThreadWatchdog, 'pastDeadline' | 'askUntil'>;
  waitingCommits: WaitingCommits;
  transcripts: Pick<TranscriptKeeper, 'complete'>;
  /** Nobody waits for what the runtime has to say any more: the actor stops, or a cancel decides. */
  nobodyWaits: () => boolean;
  /** Monotonic milliseconds. */
  now: () => number;
  onCleanUpDue: () => void;
  log: Pick<Logger, 'info'>;
}

/** Commits the end of a run when there is room for it among all ends that wait, and orders what follows from it. */
export function createEndCommit(deps: EndCommitDeps): (verdict: Verdict) => Promise<Settled> {
  const { pipeline, journal, notes, watchdog, proposalId, runtimeThreadId, nobodyWaits } = deps;
  const { attempt, ending, sleep, delayMs, log } = deps;
  const askState = () => deps.client.getState(runtimeThreadId());
  const pastDeadline = () => nobodyWaits() || watchdog.pastDeadline();

  const settleDeps = (): SettleDeps => ({
    db: deps.db,
    journal,
    pipeline,
    proposalId,
    from: notes.from,
    attempt,
    ending,
    askState,
    sleep,
    delayMs,
    awaited: deps.awaited,
    allowed: deps.allowed,
    pastDeadline,
    mayAskAgain: () => !nobodyWaits() && deps.now() < watchdog.askUntil(),
    onCommitted(status, code) {
      notes.end(status, code);
      if (status === 'failed') deps.onCleanUpDue();
    },
    onTranscriptLacking(epoch, upTo) {
      const { held } = pipeline;
      const generation = journal.generation();
      const run = { proposalId, runtimeThreadId: runtimeThreadId(), epoch, generation };
      void deps.transcripts.complete({ ...run, upTo, held });
    },
  });

  return (verdict) => {
    const end = createDroppedEnd({
      pipeline,
      ending,
      askState,
      sleep,
      delayMs,
      isStopped: pastDeadline,
      log,
    });
    return deps.waitingCommits.hold(end, () => settleRun(settleDeps(), verdict));
  };
}
