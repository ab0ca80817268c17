import type { ThreadRow } from '../db/row-schemas.js';
import { isPoisoned } from './poison.js';
import type { ProposalInput } from './proposal-types.js';

/** What a thread's machine begins with: its row as it was read, and what this replica is to it. */
export const proposalInputOf = (
  row: ThreadRow,
  here: Pick<ProposalInput, 'role' | 'awaited' | 'maxAttempts'>,
): ProposalInput => ({
  proposalId: row.proposalId,
  threadId: row.threadId,
  attempt: row.attempt,
  maxAttempts: here.maxAttempts,
  jobId: row.jobId,
  runtimeThreadId: row.runtimeThreadId,
  role: here.role,
  status: row.status,
  awaited: here.awaited,
  cancelled: row.cancelRequestedAt !== null,
  poisoned: isPoisoned(row),
});
