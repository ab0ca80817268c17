import type { ProposalFacts, Transition } from './facts.js';

const begun = ['invoking', 'streaming', 'reconnecting', 'retrying'];

interface Legal {
  from: readonly (string | null)[];
  /** null: the state stays as it is. */
  to: string | null;
}

/** Which event may lead from where to where (docs/lifecycle.md). A new owner goes on from the phase that it finds. */
const legal: Readonly<Record<string, Legal>> = {
  start: { from: [null], to: 'invoking' },
  'run.streaming': { from: ['invoking', 'reconnecting', 'retrying'], to: 'streaming' },
  'run.reconnecting': { from: ['invoking', 'streaming', 'retrying'], to: 'reconnecting' },
  'runtime.opened': { from: begun, to: 'streaming' },
  'attempt.failed': { from: begun, to: 'retrying' },
  'attempt.begun': { from: ['retrying'], to: 'invoking' },
  'runtime.ended': { from: ['invoking', 'streaming', 'reconnecting', 'retrying'], to: 'completed' },
  'run.failed': { from: begun, to: 'failed' },
  'run.cancelled': { from: begun, to: 'failed' },
  start_refused: { from: ['invoking'], to: 'failed' },
  start_kept: { from: begun, to: null },
  cancel: { from: begun, to: null },
  taken_over: { from: begun, to: null },
  given_up: { from: begun, to: null },
  approve: { from: ['completed'], to: 'resolved' },
  reject: { from: ['completed'], to: 'resolved' },
  expire: { from: ['completed'], to: 'resolved' },
  supersede: { from: ['completed'], to: 'resolved' },
};

const once = [
  'start',
  'runtime.ended',
  'run.failed',
  'run.cancelled',
  'start_refused',
  'cancel',
  'approve',
  'reject',
];

const nameOf = ({ event, from, to }: Transition) => `${event} (${from ?? 'nothing'} to ${to})`;

/** What is wrong with a proposal's audit: illegal, doubled, missing or unordered transitions. */
export function faultsOfAudit(proposal: ProposalFacts): string[] {
  const { transitions } = proposal;
  const faults: string[] = [];
  const [first, last] = [transitions[0], transitions.at(-1)];
  if (first === undefined || last === undefined) return ['no audit at all'];
  if (first.rowVersion !== 1) faults.push(`the audit begins at version ${first.rowVersion}`);

  let takenOver = 0;
  /**
   * How often the version may have been raised without a transition: a new owner sets the count of take-overs to 0, and
   * once the run has ended, each part of its transcript raises it.
   */
  let silent = 0;
  let before: Transition | null = null;
  for (const one of transitions) {
    const rule = legal[one.event];
    if (rule === undefined) faults.push(`unknown event ${nameOf(one)}`);
    else if (!rule.from.includes(one.from) || one.to !== (rule.to ?? one.from))
      faults.push(`illegal transition ${nameOf(one)}`);
    if (before !== null) {
      if (one.from !== before.to) faults.push(`${nameOf(one)} follows ${nameOf(before)}`);
      const missing = one.rowVersion - before.rowVersion - 1;
      if (missing < 0) faults.push(`version ${one.rowVersion} after ${before.rowVersion}`);
      else if (missing > silent)
        faults.push(`versions ${before.rowVersion + 1} to ${one.rowVersion - 1} have no transition`);
      else silent -= missing;
      const step = one.attempt - before.attempt;
      const opens = before.event === 'attempt.failed';
      if (step < 0 || step > (opens ? 1 : 0)) faults.push(`attempt ${one.attempt} after ${before.attempt}`);
    }
    if (one.event === 'taken_over') {
      takenOver++;
      silent++;
    }
    if (one.to === 'completed' || one.to === 'failed') silent = Number.POSITIVE_INFINITY;
    before = one;
  }
  for (const event of once) {
    const count = transitions.filter((one) => one.event === event).length;
    if (count > 1) faults.push(`${count} times ${event}`);
  }
  const raised = takenOver + proposal.transcriptTries;
  if (proposal.ownerGeneration !== 1 + raised)
    faults.push(`generation ${proposal.ownerGeneration} after ${raised} take-overs`);
  const state = proposal.phase ?? proposal.status;
  if (last.to !== state) faults.push(`the audit ends in ${last.to}, the row is ${state}`);
  const since = proposal.version - last.rowVersion;
  if (since < 0 || since > silent)
    faults.push(`the row has version ${proposal.version}, the audit ends at ${last.rowVersion}`);
  return faults;
}
