import type { ThreadDirectory } from '../actors/thread-directory.js';
import { type AccessResult, grantViewer, revokeViewer } from '../db/access.js';
import { noProposal, notOwner, visibleProposal } from './proposals.js';
import { type Call, type Route, route } from './route.js';

/** Letting others look: they see the proposal, its diff, audit and stream, and nothing else of the workflow. */
export function accessRoutes(deps: { directory: Pick<ThreadDirectory, 'notice'> }): Route[] {
  const change = async (
    call: Call<undefined, undefined>,
    apply: (change: { proposalId: string; userId: string; viewerId: string }) => Promise<AccessResult>,
  ) => {
    const { row } = await visibleProposal(call);
    const viewerId = call.params.user_id ?? '';
    const result = await apply({ proposalId: row.id, userId: call.identity.userId, viewerId });
    if (result === 'not_found') throw noProposal();
    if (result === 'forbidden') throw notOwner();
    // Withdrawn access closes sockets: the actor looks at once, not at its next reading of the rows.
    deps.directory.notice(row.threadId);
    return { status: 204 };
  };
  const shared = {
    tag: 'access',
    path: '/api/proposals/{proposal_id}/access/{user_id}',
    answers: { 204: null },
    errors: ['not_found', 'forbidden'] as const,
  };
  return [
    route({
      ...shared,
      method: 'PUT',
      name: 'grantAccess',
      summary: 'Let a user look at the proposal',
      handle: (call) => change(call, (input) => grantViewer(call.db, input)),
    }),
    route({
      ...shared,
      method: 'DELETE',
      name: 'withdrawAccess',
      summary: 'Withdraw it; open sockets of the user are closed',
      handle: (call) => change(call, (input) => revokeViewer(call.db, input)),
    }),
  ];
}
