import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { named } from './statement.js';

const transition = z.object({
  from: z.string().nullable(),
  to: z.string(),
  event: z.string(),
  actorUserId: z.string().nullable(),
  attempt: z.number(),
  at: z.string(),
  details: z.unknown(),
});
export type AuditRow = z.infer<typeof transition>;

/** The audit of a proposal in order; the first `from` is null. `details` keeps the names of the wire. */
export const listTransitions = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<AuditRow[]> => [
  ...(await db.any(named('list_transitions', transition)`
    SELECT from_state AS "from", to_state AS "to", event, actor_user_id AS "actorUserId", attempt, at, details
    FROM proposal_transitions WHERE proposal_id = ${input.proposalId} ORDER BY row_version`)),
];
