import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { named } from './statement.js';
import { ensureUser } from './users.js';

interface AccessChange {
  readonly proposalId: string;
  /** Who asks: only the owner may. */
  readonly userId: string;
  readonly viewerId: string;
}

export type AccessResult = 'ok' | 'not_found' | 'forbidden';

const roleOf = (db: CommonQueryMethods, proposalId: string, userId: string) =>
  db.maybeOneFirst(named('access_role', z.object({ role: z.enum(['owner', 'viewer']) }))`
    SELECT x.role FROM proposal_access x
    JOIN proposals p ON p.id = x.proposal_id
    JOIN workflows w ON w.id = p.workflow_id AND w.deleted_at IS NULL
    WHERE x.proposal_id = ${proposalId} AND x.user_id = ${userId}`);

const refusal = async (db: CommonQueryMethods, input: AccessChange): Promise<AccessResult | null> => {
  const role = await roleOf(db, input.proposalId, input.userId);
  if (!role) return 'not_found';
  return role === 'owner' ? null : 'forbidden';
};

/** Lets `viewerId` see the proposal, diff, audit and stream. Repeated, or for the owner, it changes nothing. */
export const grantViewer = (pool: CommonQueryMethods, input: AccessChange): Promise<AccessResult> =>
  pool.transaction(async (tx) => {
    const refused = await refusal(tx, input);
    if (refused) return refused;
    await ensureUser(tx, input.viewerId);
    await tx.any(named('grant_viewer', z.object({}))`
      WITH given AS (
        INSERT INTO proposal_access (proposal_id, user_id, role)
        VALUES (${input.proposalId}, ${input.viewerId}, 'viewer')
        ON CONFLICT DO NOTHING RETURNING proposal_id
      ), moved AS (
        UPDATE proposals p SET access_version = access_version + 1, version = version + 1
        FROM given WHERE p.id = given.proposal_id RETURNING p.thread_id
      )
      SELECT pg_notify('threads', thread_id::text) FROM moved`);
    return 'ok';
  });

/** Withdraws a viewer's access and raises `access_version`, by which open sockets are found (`guarantees.md` 19). */
export const revokeViewer = (pool: CommonQueryMethods, input: AccessChange): Promise<AccessResult> =>
  pool.transaction(async (tx) => {
    const refused = await refusal(tx, input);
    if (refused) return refused;
    await tx.any(named('revoke_viewer', z.object({}))`
      WITH taken AS (
        DELETE FROM proposal_access
        WHERE proposal_id = ${input.proposalId} AND user_id = ${input.viewerId} AND role = 'viewer'
        RETURNING proposal_id
      ), moved AS (
        UPDATE proposals p SET access_version = access_version + 1, version = version + 1
        FROM taken WHERE p.id = taken.proposal_id RETURNING p.thread_id
      )
      SELECT pg_notify('threads', thread_id::text) FROM moved`);
    return 'ok';
  });
