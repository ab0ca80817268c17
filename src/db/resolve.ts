import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import type { ProposalResolution } from './row-schemas.js';
import { jsonOf, named } from './statement.js';

const EVENTS = {
  approved: 'approve',
  rejected: 'reject',
  expired: 'expire',
  superseded: 'supersede',
} as const;

/** The runtime's log is what an incomplete transcript is completed from: its clean-up waits so long, and no longer. */
const TRANSCRIPT_WAIT_SECONDS = 60;

/**
 * Orders the clean-up of every attempt of the proposals in the CTE `moved` (id, attempt, transcript_due_at) that is
 * neither confirmed nor ordered yet (`guarantees.md` 15, 18). By the job where the runtime has answered no thread.
 */
export const cleanupOfMoved = sql.fragment`
  INSERT INTO outbox (job_id, runtime_thread_id, due_at)
  SELECT a.job_id, a.runtime_thread_id,
         CASE WHEN m.transcript_due_at IS NOT NULL AND a.attempt = m.attempt
           THEN now() + ${TRANSCRIPT_WAIT_SECONDS} * interval '1 second' ELSE now() END
  FROM attempts a JOIN moved m ON a.proposal_id = m.id
  WHERE a.cleaned_at IS NULL
  ON CONFLICT (job_id) DO NOTHING`;

/**
 * Decides completed proposals: row, audit record, clean-ups and notice in one statement. The caller holds the lock of
 * their workflow (`guarantees.md` 5).
 *
 * @returns the ids that were decided; one that was not `completed` any more is left alone
 */
export const resolveProposals = async (
  tx: CommonQueryMethods,
  input: {
    readonly ids: readonly string[];
    readonly resolution: ProposalResolution;
    readonly userId: string | null;
    readonly details: object | null;
  },
): Promise<string[]> => {
  if (input.ids.length === 0) return [];
  const rows = await tx.any(named('resolve_proposals', z.object({ id: z.string() }))`
    WITH moved AS (
      UPDATE proposals SET
        status = 'resolved', resolution = ${input.resolution}, resolved_at = now(),
        resolved_by_user_id = ${input.userId}, owner_node = NULL, version = version + 1
      WHERE id = ANY(${sql.array([...input.ids], 'uuid')}) AND status = 'completed'
      RETURNING id, thread_id, version, attempt, transcript_due_at
    ), noted AS (
      INSERT INTO proposal_transitions
        (id, proposal_id, row_version, from_state, to_state, event, actor_user_id, attempt, details)
      SELECT gen_random_uuid(), id, version, 'completed', 'resolved', ${EVENTS[input.resolution]},
             ${input.userId}::text, attempt, ${jsonOf(input.details)}::jsonb
      FROM moved
    ), cleaned AS (${cleanupOfMoved})
    SELECT id, pg_notify('threads', thread_id::text) FROM moved ORDER BY id`);
  return rows.map((row) => row.id);
};
