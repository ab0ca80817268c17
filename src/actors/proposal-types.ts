import type { ProposalError, ProposalStatus } from '@ide-orchestrator/protocol';
import type { LifecycleFact } from '../streams/stream-signals.js';

/** How the actor takes part: the owner writes, a reader only serves its own viewers. */
export type Role = 'owner' | 'reader';

/** What a run's end is to become. `settle` makes the commit of it. */
export type Verdict =
  | { kind: 'completed' }
  /** `byRuntime`: the runtime itself ended the run, so its epoch goes on to the end. */
  | { kind: 'failed'; error: ProposalError; byRuntime: boolean }
  /** The time is over and the run has not told its end here: the runtime is asked for it before this is committed. */
  | { kind: 'overdue'; error: ProposalError }
  /** The first invoke was refused for certain: nothing has begun, and the request hears of it. */
  | { kind: 'refused'; error: ProposalError };

/** JSON only: it may be stored. */
export interface ProposalContext {
  proposalId: string;
  threadId: string;
  attempt: number;
  maxAttempts: number;
  /** Job of the present attempt. */
  jobId: string;
  runtimeThreadId: string | null;
  /** The request that made the proposal still waits for the first invoke. */
  awaited: boolean;
  cancelled: boolean;
  verdict: Verdict | null;
  /** Why the attempt that is being closed failed. */
  failure: ProposalError | null;
  /** Where the life goes on when the actor is made. */
  entry: 'invoking' | 'poisoned' | 'following' | 'completed' | 'failed' | 'resolved';
}

export interface ProposalInput {
  proposalId: string;
  threadId: string;
  attempt: number;
  maxAttempts: number;
  jobId: string;
  runtimeThreadId: string | null;
  role: Role;
  status: ProposalStatus;
  awaited: boolean;
  cancelled: boolean;
  /** The thread has brought down one replica after the other: it is failed, and not run again. */
  poisoned: boolean;
}

/** The input of an invoked actor: the machine is one for all threads, so each names its own. */
export type Of<Input> = Input & { threadId: string };

/** The conclusive answer to an invoke that was repeated until there was one. */
export type InvokeAnswer =
  | { kind: 'started'; runtimeThreadId: string }
  | { kind: 'gone' }
  | { kind: 'rejected'; message: string }
  /** Only while the request waits: later refusals are repeated. */
  | { kind: 'refused'; message: string };

/** What the commit of an ending came to. */
export type Settled =
  | { kind: 'committed'; status: 'completed' | 'failed' }
  /** A cancel was committed first. */
  | { kind: 'cancelled' }
  /** A refusal of the start that is not committed, and that nobody waits for any more. */
  | { kind: 'withdrawn' }
  /** Somebody else owns the row now. */
  | { kind: 'lost' }
  /** The row was ended by somebody else. */
  | { kind: 'finished'; status: ProposalStatus };

export type Closed =
  | { kind: 'next'; attempt: number; jobId: string }
  | { kind: 'lost' }
  | { kind: 'cancelled' }
  | { kind: 'finished'; status: ProposalStatus };

/** Facts are past tense and carry their source; commands are imperative. */
export type ProposalEvent =
  | LifecycleFact
  | { type: 'runtime.stalled' }
  | { type: 'cancel.requested' }
  | { type: 'deadline.passed' }
  /** A commit found that another replica owns the row. */
  | { type: 'row.lost' }
  /** The row names this replica as owner, under a generation that the actor may write with. */
  | { type: 'row.gained'; attempt: number; jobId: string; runtimeThreadId: string | null; poisoned: boolean }
  /** The owner, another replica, has gone over to the next attempt. */
  | { type: 'row.advanced'; attempt: number; jobId: string; runtimeThreadId: string | null }
  | { type: 'row.finished'; status: ProposalStatus };

/** Every state of the machine; the labels of `actors{state}`. */
export const proposalStates = [
  'invoking',
  'streaming',
  'reconnecting',
  'cancelling',
  'retrying',
  'finalizing',
  'following',
  'completed',
  'failed',
  'resolved',
] as const;
export type ProposalState = (typeof proposalStates)[number];
