import type { Breaches } from '../breaches.js';
import type { Counts } from '../load/counts.js';
import type { Refined } from '../load/refine-once.js';
import { faultsOfAudit } from './check-audit.js';
import { faultsOfEnds, faultsOfOutcome, faultsOfRuns } from './check-outcome.js';
import type { ProposalFacts } from './facts.js';
import { type AllFacts, hashesOf } from './read-facts.js';

/** Compares what the databases say with what clients and viewers know. */
export function judge(
  facts: AllFacts,
  refined: readonly Refined[],
  breaches: Breaches,
  counts: Counts,
): void {
  const { proposals, runs, drafts } = facts;
  const byWorkflow = new Map<string, ProposalFacts[]>();
  for (const one of proposals)
    byWorkflow.set(one.workflowId, [...(byWorkflow.get(one.workflowId) ?? []), one]);
  const known = new Map(refined.map((one) => [one.workflowId, one]));
  const jobs = new Set(proposals.flatMap(({ attempts }) => attempts.map(({ jobId }) => jobId)));
  for (const proposal of proposals) {
    counts.add(`outcome ${proposal.resolution ?? proposal.errorCode ?? proposal.status}`);
    const one = known.get(proposal.workflowId);
    const logs = one?.proposalId === proposal.id ? one.logs : [];
    const faults = [
      ...faultsOfAudit(proposal),
      ...faultsOfRuns(proposal, runs),
      ...faultsOfEnds(proposal, hashesOf(proposal.files ?? {}), logs),
    ];
    for (const fault of faults) breaches.add(proposal.threadId, fault);
    if (faults.length > 0) breaches.keep(`proposal-${proposal.threadId}`, proposal);
  }
  for (const one of refined) {
    const mine = byWorkflow.get(one.workflowId) ?? [];
    const faults = faultsOfOutcome(one, mine, drafts.get(one.workflowId) ?? null);
    const about = one.threadId ?? `workflow ${one.workflowId}`;
    for (const fault of faults) breaches.add(about, fault);
    if (faults.length > 0) breaches.keep(`outcome-${about}`, { one, mine });
  }
  for (const run of runs.values()) {
    const isTombstone = run.startedAt === null && run.status === 'deleted';
    if (!jobs.has(run.jobId) && !isTombstone) breaches.add(run.jobId, 'a run that no attempt names');
  }
  if (facts.outbox > 0) breaches.add('outbox', `${facts.outbox} clean-ups were not delivered`);
}
