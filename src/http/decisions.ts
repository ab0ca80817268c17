import {
  approved,
  approveRequest,
  cancelAccepted,
  emptyRequest,
  rejected,
  rejectRequest,
} from '@ide-orchestrator/protocol';
import type { ThreadDirectory } from '../actors/thread-directory.js';
import { approveProposal, rejectProposal, requestCancel } from '../db/decisions.js';
import { findProposalFor } from '../db/proposals.js';
import { AppError } from '../errors.js';
import type { Metrics } from '../telemetry/metrics.js';
import { noProposal, notOwner, visibleProposal } from './proposals.js';
import { type Route, route } from './route.js';

const tag = 'decisions';

/** What becomes of a proposal: its owner approves, rejects or cancels it. */
export function decisionRoutes(deps: {
  directory: Pick<ThreadDirectory, 'notice'>;
  metrics: Pick<Metrics, 'proposalsResolvedTotal'>;
}): Route[] {
  return [
    route({
      method: 'POST',
      path: '/api/proposals/{proposal_id}/approve',
      name: 'approveProposal',
      summary: 'Apply the proposal to the draft, all of it or the named files; all or nothing',
      tag,
      body: approveRequest,
      answers: { 200: approved },
      errors: ['not_found', 'forbidden', 'proposal_conflict', 'already_resolved', 'proposal_not_completed'],
      idempotency: 'answer',
      async handle(call) {
        const { row } = await visibleProposal(call);
        const result = await approveProposal(call.db, {
          proposalId: row.id,
          userId: call.identity.userId,
          ...(call.body.files === undefined ? {} : { files: call.body.files }),
          ...(call.body.resolutions === undefined ? {} : { resolutions: call.body.resolutions }),
        });
        switch (result.kind) {
          case 'ok':
            call.afterCommit(() => {
              if (result.first) deps.metrics.proposalsResolvedTotal.inc({ resolution: 'approved' });
              deps.directory.notice(row.threadId);
            });
            return {
              status: 200,
              body: {
                proposal_id: row.id,
                status: 'resolved',
                resolution: 'approved',
                draft_revision: result.draftRevision,
                files_applied: result.filesApplied,
              },
            };
          case 'conflict':
            throw new AppError(
              'proposal_conflict',
              'Some files changed in the draft after the run had begun.',
              {
                conflicts: result.conflicts,
              },
            );
          case 'invalid':
            throw new AppError('validation_failed', 'Some fields break the contract.', {
              errors: result.errors,
            });
          default:
            throw refusalOf(result, row.status);
        }
      },
    }),
    route({
      method: 'POST',
      path: '/api/proposals/{proposal_id}/reject',
      name: 'rejectProposal',
      summary: 'Discard the proposal; the draft stays as it is',
      tag,
      body: rejectRequest,
      answers: { 200: rejected },
      errors: ['not_found', 'forbidden', 'already_resolved', 'proposal_not_completed'],
      idempotency: 'answer',
      async handle(call) {
        const { row } = await visibleProposal(call);
        const result = await rejectProposal(call.db, {
          proposalId: row.id,
          userId: call.identity.userId,
          ...(call.body.reason == null ? {} : { reason: call.body.reason }),
        });
        if (result.kind !== 'ok') throw refusalOf(result, row.status);
        call.afterCommit(() => {
          if (result.first) deps.metrics.proposalsResolvedTotal.inc({ resolution: 'rejected' });
          deps.directory.notice(row.threadId);
        });
        return { status: 200, body: { proposal_id: row.id, status: 'resolved', resolution: 'rejected' } };
      },
    }),
    route({
      method: 'POST',
      path: '/api/proposals/{proposal_id}/cancel',
      name: 'cancelProposal',
      summary: 'Cancel the run; it is written down before this answers',
      tag,
      body: emptyRequest,
      answers: { 202: cancelAccepted },
      errors: ['not_found', 'forbidden', 'not_processing'],
      idempotency: 'answer',
      async handle(call) {
        const { row } = await visibleProposal(call);
        const result = await requestCancel(call.db, { proposalId: row.id, userId: call.identity.userId });
        if (result === 'not_found') throw noProposal();
        if (result === 'forbidden') throw notOwner();
        if (result === 'not_processing')
          throw new AppError('not_processing', `The proposal is ${row.status}.`);
        call.afterCommit(() => deps.directory.notice(row.threadId));
        const now = await findProposalFor(call.db, { proposalId: row.id, userId: call.identity.userId });
        return { status: 202, body: { proposal_id: row.id, status: now?.row.status ?? row.status } };
      },
    }),
  ];
}

function refusalOf(
  result:
    | { kind: 'already_resolved'; resolution: string }
    | { kind: 'not_completed' | 'not_found' | 'forbidden' },
  status: string,
): AppError {
  switch (result.kind) {
    case 'already_resolved':
      return new AppError('already_resolved', `The proposal is already ${result.resolution}.`);
    case 'not_completed':
      return new AppError(
        'proposal_not_completed',
        `The proposal is ${status}; only a completed one is decided.`,
      );
    case 'forbidden':
      return notOwner();
    case 'not_found':
      return noProposal();
  }
}
