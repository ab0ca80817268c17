import type { ProposalError, Warning, WireFiles } from '@ide-orchestrator/protocol';
import { storableText } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import type { LastFrames as StoredLastFrames } from '../db/proposals.js';
import { commitCompleted, commitFailed, commitRefusedStart } from '../db/run-progress.js';
import type { LastFrames } from '../streams/released-log.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import { closedFrames, completedFrames, type EndingFacts, failedFrames } from './last-frames.js';
import type { Settled, Verdict } from './proposal-types.js';
import { findRunFiles, type RunFiles, type RunFilesDeps } from './run-files.js';
import { transcriptOfEnd } from './transcript-of-end.js';
import type { JournalOutcome, TransitionJournal } from './transition-journal.js';
import { errorOfState } from './verdicts.js';

export interface SettleDeps extends RunFilesDeps {
  db: CommonQueryMethods;
  journal: TransitionJournal;
  pipeline: ThreadPipeline;
  proposalId: string;
  /** State of the audit that the run leaves. */
  from: () => string;
  attempt: () => number;
  /** The request that made the proposal still waits: it would be told of a refusal. */
  awaited: () => boolean;
  /** A runtime that is away is asked for the end of an overdue run once more. */
  mayAskAgain: () => boolean;
  /** The commit is made; `code` names a failure. */
  onCommitted: (status: 'completed' | 'failed', code: string | null) => void;
  /** The commit is made, and its transcript lacks frames up to this number. */
  onTranscriptLacking: (epoch: string, upTo: number) => void;
}

const stored = (last: LastFrames): StoredLastFrames => ({
  epoch: last.epoch,
  frames: last.frames.map(({ number, bytes }) => ({ seq: number, bytes })),
});

/**
 * Makes the commit of a verdict, then tells the viewers: the `end` that they see leaves after the files, the
 * status and the audit record are in PostgreSQL (P1).
 */
export async function settleRun(deps: SettleDeps, verdict: Verdict): Promise<Settled> {
  if (verdict.kind === 'completed') {
    const found = await findRunFiles(deps);
    if (found.fault !== null) return fail(deps, found.fault, true, found.warnings);
    return complete(deps, found);
  }
  if (verdict.kind === 'overdue') return settleOverdue(deps, verdict.error);
  if (verdict.kind === 'failed') return fail(deps, verdict.error, verdict.byRuntime, []);
  return refuse(deps, verdict.error);
}

/**
 * Only who still waits is told of a refusal. A commit of it that was not made until then is not made any more: the
 * request is answered as if the invoke had got no answer, and the run is invoked again.
 */
async function refuse(deps: SettleDeps, raw: ProposalError): Promise<Settled> {
  const error = cleanError(raw);
  const last = closedFrames(factsOf(deps, 'failed', {}, []), error);
  const outcome = await deps.journal.append(
    (fence) =>
      commitRefusedStart(deps.db, { ...fence, error, lastFrames: stored(last), finalEpoch: last.epoch }),
    (row) => row.cancelRequestedAt === null && deps.awaited(),
  );
  if (outcome.kind === 'moved' && outcome.row.cancelRequestedAt === null) return { kind: 'withdrawn' };
  return told(deps, outcome, last, 'failed', error.code);
}

/** A run may have ended while nobody looked: what its time is up for is asked of the runtime first (`guarantees.md` 13). */
async function settleOverdue(deps: SettleDeps, tooLate: ProposalError): Promise<Settled> {
  let asked = await deps.askState();
  for (let failures = 0; asked.kind === 'away' && deps.mayAskAgain(); failures++) {
    await deps.sleep(deps.delayMs(failures));
    asked = await deps.askState();
  }
  if (asked.kind !== 'state' || asked.state.status === 'running') return fail(deps, tooLate, false, []);
  const { state } = asked;
  const ending = { errorNumber: 0, errorBytes: null, error: null, endNumber: 0, state };
  const told = { ...deps, ending: () => ending };
  if (state.status === 'completed') return settleRun(told, { kind: 'completed' });
  return fail(told, errorOfState(state), true, []);
}

/** Characters of what a runtime says of a failure; a person reads no more. */
const CODE_CHARACTERS = 64;
const MESSAGE_CHARACTERS = 2_000;

function cleanError({ code, message, retryable }: ProposalError): ProposalError {
  return {
    code: storableText(code.slice(0, CODE_CHARACTERS)),
    message: storableText(message.slice(0, MESSAGE_CHARACTERS)),
    retryable,
  };
}

function factsOf(
  deps: SettleDeps,
  status: 'completed' | 'failed',
  files: WireFiles,
  warnings: Warning[],
): EndingFacts {
  const { fanOut, newestFiles } = deps.pipeline;
  return {
    proposalId: deps.proposalId,
    attempt: deps.attempt(),
    status,
    files,
    warnings,
    state: newestFiles.frame(),
    released: fanOut.lastReleased(),
    epoch: fanOut.epoch(),
  };
}

async function complete(deps: SettleDeps, found: RunFiles): Promise<Settled> {
  const { files, warnings } = found;
  const facts = factsOf(deps, 'completed', files, warnings);
  const last = completedFrames(facts, deps.ending());
  const transcript = await transcriptOfEnd(deps.pipeline);
  const outcome = await deps.journal.append(
    (fence) =>
      commitCompleted(deps.db, fence, {
        from: deps.from(),
        event: 'runtime.ended',
        attempt: deps.attempt(),
        generatedFiles: files,
        warnings,
        lastFrames: stored(last),
        finalEpoch: last.epoch,
        transcript: transcript.take(),
        details: { files: Object.keys(files).length },
      }),
    (row) => row.cancelRequestedAt === null,
  );
  if (outcome.kind === 'refused') {
    const error = {
      code: 'invalid_content',
      message: 'The files hold text that cannot be stored.',
      retryable: false,
    };
    return fail(deps, error, true, warnings);
  }
  const settled = told(deps, outcome, last, 'completed', null);
  if (outcome.kind === 'committed' && transcript.lacks())
    deps.onTranscriptLacking(last.epoch, facts.released);
  return settled;
}

async function fail(
  deps: SettleDeps,
  raw: ProposalError,
  byRuntime: boolean,
  warnings: Warning[],
): Promise<Settled> {
  const error = cleanError(raw);
  const facts = factsOf(deps, 'failed', {}, warnings);
  const ending = deps.ending();
  // A run whose end only `state` told has a live epoch too, but no frame of the runtime's that ends it.
  const goesOn = byRuntime && ending !== null && ending.state === null;
  const last = goesOn ? failedFrames(facts, ending, error) : closedFrames(facts, error);
  // Viewers of an epoch of ours get nothing of the run but the last frames.
  const transcript = goesOn ? await transcriptOfEnd(deps.pipeline) : undefined;
  const outcome = await deps.journal.append(
    (fence) =>
      commitFailed(deps.db, fence, {
        from: deps.from(),
        event: error.code === 'cancelled' ? 'run.cancelled' : 'run.failed',
        attempt: deps.attempt(),
        error,
        warnings,
        lastFrames: stored(last),
        finalEpoch: last.epoch,
        transcript: transcript?.take(),
        details: { code: error.code },
      }),
    // A cancel that was committed first is the outcome, however the run ended (protocol.md 2).
    (row) => error.code === 'cancelled' || row.cancelRequestedAt === null,
  );
  const settled = told(deps, outcome, last, 'failed', error.code);
  if (outcome.kind === 'committed' && transcript?.lacks())
    deps.onTranscriptLacking(last.epoch, facts.released);
  return settled;
}

function told(
  deps: SettleDeps,
  outcome: JournalOutcome,
  last: LastFrames,
  status: 'completed' | 'failed',
  code: string | null,
): Settled {
  switch (outcome.kind) {
    case 'committed':
      deps.pipeline.finish(last);
      deps.onCommitted(status, code);
      return { kind: 'committed', status };
    case 'moved':
      return { kind: 'cancelled' };
    case 'finished':
      return { kind: 'finished', status: outcome.row.status };
    case 'refused':
      throw outcome.error;
    default:
      return { kind: 'lost' };
  }
}
