import type { ProposalPhase, ProposalStatus } from '@ide-orchestrator/protocol';
import type { SnapshotFrom } from 'xstate';
import type { ThreadRow } from '../db/row-schemas.js';
import type { SubscribedFacts } from '../streams/fan-out.js';
import type { proposalMachine } from './proposal-machine.js';
import type { ProposalState, Role } from './proposal-types.js';

export interface ThreadStandingDeps {
  snapshot: () => SnapshotFrom<typeof proposalMachine>;
  /** The newest row that was read. */
  row: () => ThreadRow;
  /** The job of the attempt that runs. */
  jobId: () => string;
}

/** Where a thread's machine stands, in the words of those that ask. */
export interface ThreadStanding {
  state(): ProposalState;
  role(): Role;
  /** Completed, failed or resolved. */
  isFinal(): boolean;
  /** The first invoke was refused for certain. */
  isRefused(): boolean;
  /** As viewers are told of it; the row may not say so yet. */
  facts(): SubscribedFacts;
  /** The runtime's name of the run, once it gave one. */
  namedThreadId(): string | null;
  /** The run as the runtime names it, or will. */
  runtimeThreadId(): string;
}

export function createThreadStanding({ snapshot, row, jobId }: ThreadStandingDeps): ThreadStanding {
  const state = (): ProposalState => {
    const { value } = snapshot();
    return (typeof value === 'string' ? value : value.live) as ProposalState;
  };
  const isFinal = () => snapshot().hasTag('final');
  const status = () => (isFinal() ? (state() as ProposalStatus) : 'processing');
  const phase = (): ProposalPhase | null => {
    const now = state();
    if (isFinal()) return null;
    if (now === 'following') return row().phase;
    return now === 'cancelling' ? 'streaming' : (now as ProposalPhase);
  };
  const namedThreadId = () => snapshot().context.runtimeThreadId;
  return {
    state,
    role: () => (state() === 'following' ? 'reader' : 'owner'),
    isFinal,
    isRefused: () => snapshot().context.verdict?.kind === 'refused',
    facts() {
      const { threadId: thread_id, proposalId: proposal_id } = snapshot().context;
      return { thread_id, proposal_id, status: status(), phase: phase() };
    },
    namedThreadId,
    runtimeThreadId: () => namedThreadId() ?? jobId(),
  };
}
