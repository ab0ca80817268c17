import type { DraftFacts, ProposalFacts, RunFacts } from './facts.js';
import type { ViewerLog } from './viewer-log.js';

/** What a prompt has to lead to, whatever happens on the way. */
export interface Reference {
  prompt: string;
  /** Code of the failure that the prompt asks for; null = it completes. */
  failsWith: string | null;
  attempts: number;
  baseFiles: Readonly<Record<string, string>>;
  /** Of a run on healthy parts; null where it fails. */
  files: Readonly<Record<string, string | null>> | null;
}

/** One answer to a client's decision. */
export interface Decision {
  kind: 'approve' | 'reject';
  status: number;
}

/** One refinement as its client knows it. It has a workflow of its own. */
export interface Refinement {
  workflowId: string;
  reference: Reference;
  /** Of the answer 202; null where none came before the campaign ended. */
  proposalId: string | null;
  decisions: readonly Decision[];
}

type Files = Readonly<Record<string, string | null>>;

/** Paths whose content differs; absent and deleted are the same. */
function differences(one: Files, other: Files): string[] {
  const paths = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...paths].filter((path) => (one[path] ?? null) !== (other[path] ?? null));
}

const isRefused = (proposal: ProposalFacts) =>
  proposal.status === 'failed' && proposal.transitions.some(({ event }) => event === 'start_refused');

/**
 * What is wrong with the outcome of one refinement.
 *
 * Right is: at most one proposal that was not refused at its start, and exactly the one that the client was told of.
 * A refused one is failed as `runtime_unavailable`; where the runtime had written the run before it refused, that was
 * cleaned up like every other (see faultsOfRuns). The other one is failed as `cancelled` where its cancel was committed;
 * failed as `poisoned` where four owners in a row were killed over it; failed with the code that its prompt asks for;
 * else completed, or resolved as it was decided, with the files of the
 * reference.
 */
export function faultsOfOutcome(
  refinement: Refinement,
  proposals: readonly ProposalFacts[],
  draft: DraftFacts | null,
): string[] {
  const faults: string[] = [];
  for (const one of proposals.filter(isRefused)) {
    if (one.errorCode !== 'runtime_unavailable') faults.push(`refused with ${one.errorCode}`);
  }
  const accepted = proposals.filter((one) => !isRefused(one));
  if (accepted.length > 1) faults.push(`${accepted.length} proposals for one Idempotency-Key`);
  const main = accepted[0];
  if (main === undefined) {
    if (refinement.proposalId !== null)
      faults.push(`proposal ${refinement.proposalId} was promised and is not there`);
    return faults;
  }
  if (refinement.proposalId !== null && refinement.proposalId !== main.id)
    faults.push(`proposal ${refinement.proposalId} was promised, ${main.id} is there`);
  return [
    ...faults,
    ...faultsOfEnd(refinement.reference, main),
    ...faultsOfDecision(refinement, main, draft),
  ];
}

/** Take-overs from dead owners in a row after which a thread is failed, and not run again (`guarantees.md` 13). */
const POISONED_DEATHS = 4;

/** How many owners in a row died over the thread, up to its end; one that gave it up was not one of them. */
function deathsInARow({ transitions }: ProposalFacts): number {
  let deaths = 0;
  for (const { event, fromNode } of transitions) {
    if (event === 'taken_over' && fromNode !== null) deaths++;
    else if (event === 'taken_over' || event === 'given_up') deaths = 0;
  }
  return deaths;
}

function faultsOfEnd(reference: Reference, main: ProposalFacts): string[] {
  const faults: string[] = [];
  const { status } = main;
  if (status === 'processing') return [`still processing (${main.phase}, attempt ${main.attempt})`];
  if (main.cancelRequested) {
    if (status !== 'failed' || main.errorCode !== 'cancelled')
      faults.push(`a committed cancel led to ${status} ${main.errorCode ?? ''}`);
    return faults;
  }
  if (main.errorCode === 'poisoned' && deathsInARow(main) >= POISONED_DEATHS) return [];
  if (reference.failsWith !== null) {
    if (status !== 'failed' || main.errorCode !== reference.failsWith)
      faults.push(`${status} ${main.errorCode ?? ''} instead of failed ${reference.failsWith}`);
  } else if (status === 'failed') {
    faults.push(`failed as ${main.errorCode}`);
  } else {
    const different = differences(main.files ?? {}, reference.files ?? {});
    if (different.length > 0) faults.push(`files differ from the reference: ${different.join(', ')}`);
  }
  if (main.attempt !== reference.attempts)
    faults.push(`took ${main.attempt} attempts instead of ${reference.attempts}`);
  return faults;
}

function faultsOfDecision(refinement: Refinement, main: ProposalFacts, draft: DraftFacts | null): string[] {
  const faults: string[] = [];
  const won = (kind: Decision['kind']) =>
    refinement.decisions.some((one) => one.kind === kind && one.status === 200);
  if (won('approve') && won('reject')) faults.push('both approve and reject were answered with 200');
  if (won('approve') && main.resolution !== 'approved')
    faults.push(`an approval was answered with 200, the row is ${main.resolution ?? main.status}`);
  if (won('reject') && main.resolution !== 'rejected')
    faults.push(`a rejection was answered with 200, the row is ${main.resolution ?? main.status}`);
  const { baseFiles, files } = refinement.reference;
  const approved = main.resolution === 'approved';
  const wanted: Files = approved ? { ...baseFiles, ...files } : baseFiles;
  const different = differences(draft?.files ?? {}, wanted);
  if (different.length > 0)
    faults.push(`the draft is wrong after ${main.resolution ?? main.status}: ${different.join(', ')}`);
  const changes = approved && differences(baseFiles, wanted).length > 0 ? 1 : 0;
  if (draft?.revision !== 1 + changes)
    faults.push(`the draft has revision ${draft?.revision} after ${main.resolution ?? main.status}`);
  return faults;
}

/** What is wrong with the runs of one proposal: of two attempts the second begins when the first can write no more. */
export function faultsOfRuns(proposal: ProposalFacts, runs: ReadonlyMap<string, RunFacts>): string[] {
  const faults: string[] = [];
  let before: RunFacts | null = null;
  for (const { attempt, jobId } of proposal.attempts) {
    const run = runs.get(jobId) ?? null;
    if (run === null) continue;
    const over = before?.overAt ?? Number.POSITIVE_INFINITY;
    if (before !== null && run.createdAt < over)
      faults.push(`attempt ${attempt} began while the run of the one before could still write`);
    before = run;
    if (proposal.status !== 'processing' && run.overAt === null)
      faults.push(`the run of attempt ${attempt} goes on (${run.status})`);
    const kept = proposal.status === 'completed' && attempt === proposal.attempt;
    if (!kept && proposal.status !== 'processing' && run.status !== 'deleted')
      faults.push(`the run of attempt ${attempt} was not cleaned up (${run.status})`);
  }
  return faults;
}

/** What is wrong between what viewers were told at the end and what was committed. */
export function faultsOfEnds(
  proposal: ProposalFacts,
  hashes: Files,
  logs: readonly Pick<ViewerLog, 'viewer' | 'ends'>[],
): string[] {
  const faults: string[] = [];
  const settled = proposal.transitions.find(({ to }) => to === 'completed' || to === 'failed');
  const outcome = settled?.to ?? null;
  for (const { viewer, ends } of logs) {
    for (const end of ends) {
      if (end.status !== outcome && end.status !== proposal.status)
        faults.push(`viewer ${viewer}: end says ${end.status}, the database ${outcome ?? proposal.status}`);
      if (settled?.committedAt != null && end.at < settled.committedAt)
        faults.push(`viewer ${viewer}: end came ${settled.committedAt - end.at} ms before its commit`);
      if (outcome === 'completed' && differences(end.files, hashes).length > 0)
        faults.push(`viewer ${viewer}: end names other files than the database`);
    }
  }
  return faults;
}
