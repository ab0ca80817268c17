import {
  auditTrail,
  type ProposalDiff,
  pageOf,
  proposal,
  proposalDiff,
  proposalsQuery,
} from '@ide-orchestrator/protocol';
import { listTransitions } from '../db/audit.js';
import { findBaseAndDraft, findProposalFor, listProposals } from '../db/proposals.js';
import { AppError } from '../errors.js';
import { pageOfRows, timeCursorOf } from './page.js';
import { diffOf } from './proposal-diff.js';
import { type Call, type Route, route } from './route.js';
import { proposalOf } from './wire.js';
import { ownWorkflow } from './workflows.js';

const tag = 'proposals';
export const noProposal = () => new AppError('not_found', 'There is no such proposal.');
export const notOwner = () => new AppError('forbidden', 'Only the owner of the proposal may do this.');

/** Reading proposals: for their owner and for those that were let in to look. */
export function proposalRoutes(): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/workflows/{workflow_id}/proposals',
      name: 'listProposals',
      summary: 'The proposals of a workflow, newest first',
      tag,
      query: proposalsQuery,
      answers: { 200: pageOf(proposal) },
      errors: ['not_found'],
      async handle(call) {
        const { status, limit } = call.query;
        const cursor = timeCursorOf(call.query.cursor);
        const { id: workflowId } = await ownWorkflow(call);
        const rows = await listProposals(call.db, { workflowId, status, limit: limit + 1, cursor });
        const body = pageOfRows(rows, limit, { item: proposalOf, place: (row) => [row.createdAt, row.id] });
        return { status: 200, body };
      },
    }),
    route({
      method: 'GET',
      path: '/api/proposals/{proposal_id}',
      name: 'getProposal',
      summary: 'One proposal with its files',
      tag,
      answers: { 200: proposal },
      errors: ['not_found'],
      async handle(call) {
        const { row } = await visibleProposal(call);
        return { status: 200, body: proposalOf(row) };
      },
    }),
    route({
      method: 'GET',
      path: '/api/proposals/{proposal_id}/diff',
      name: 'diffProposal',
      summary: 'The proposal against the draft of now, file by file',
      tag,
      answers: { 200: proposalDiff },
      errors: ['not_found'],
      async handle(call) {
        const { row } = await visibleProposal(call);
        const compared = await findBaseAndDraft(call.db, { proposalId: row.id });
        if (compared === null) throw noProposal();
        const body: ProposalDiff = { files: await diffOf(compared) };
        return { status: 200, body };
      },
    }),
    route({
      method: 'GET',
      path: '/api/proposals/{proposal_id}/audit',
      name: 'auditProposal',
      summary: 'Everything that happened to the proposal, in order',
      tag,
      answers: { 200: auditTrail },
      errors: ['not_found'],
      async handle(call) {
        const { row } = await visibleProposal(call);
        const items = (await listTransitions(call.db, { proposalId: row.id })).map((entry) => ({
          from: entry.from,
          to: entry.to,
          event: entry.event,
          actor_user_id: entry.actorUserId,
          attempt: entry.attempt,
          at: entry.at,
          details: shownDetails(entry.details),
        }));
        return { status: 200, body: { items } };
      },
    }),
  ];
}

/** Which replica had a thread is for operators: its name tells of our hosts. */
const internalDetails = new Set(['node', 'from_node', 'to_node']);

function shownDetails(details: unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(details ?? {}).filter(([name]) => !internalDetails.has(name)));
}

/** The proposal that the path names, for whoever may see it; throws AppError `not_found` for all others alike. */
export async function visibleProposal(call: Pick<Call<unknown, unknown>, 'db' | 'params' | 'identity'>) {
  const found = await findProposalFor(call.db, {
    proposalId: call.params.proposal_id ?? '',
    userId: call.identity.userId,
  });
  if (found === null) throw noProposal();
  return found;
}
