import { draft, putDraftRequest } from '@ide-orchestrator/protocol';
import { deleteDraft, findDraft, putDraft } from '../db/drafts.js';
import { AppError } from '../errors.js';
import { type Route, route } from './route.js';
import { draftOf } from './wire.js';
import { noWorkflow, ownWorkflow } from './workflows.js';

const tag = 'drafts';
export const noDraft = () => new AppError('draft_not_found', 'This workflow has no draft.');

/** The draft of a workflow: what people edit and approved proposals change. */
export function draftRoutes(): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/workflows/{workflow_id}/draft',
      name: 'getDraft',
      summary: 'The draft with all its files',
      tag,
      answers: { 200: draft },
      errors: ['not_found', 'draft_not_found'],
      async handle(call) {
        const { id: workflowId } = await ownWorkflow(call);
        const row = await findDraft(call.db, { workflowId });
        if (row === null) throw noDraft();
        return { status: 200, body: draftOf(row) };
      },
    }),
    route({
      method: 'PUT',
      path: '/api/workflows/{workflow_id}/draft',
      name: 'putDraft',
      summary: 'Set or delete the named files; the others stay',
      tag,
      body: putDraftRequest,
      answers: { 200: draft },
      errors: ['not_found', 'draft_conflict'],
      async handle({ db, identity, params, body }) {
        const result = await putDraft(db, {
          workflowId: params.workflow_id ?? '',
          userId: identity.userId,
          baseRevision: body.base_revision,
          files: body.files,
        });
        if (result.kind === 'not_found') throw noWorkflow();
        if (result.kind === 'conflict') {
          throw new AppError(
            'draft_conflict',
            `Some files were written after revision ${body.base_revision}.`,
            {
              conflicts: result.conflicts,
            },
          );
        }
        if (result.kind === 'too_large') {
          throw new AppError('validation_failed', 'The draft would become too large.', {
            errors: [{ path: 'files', message: result.message }],
          });
        }
        return { status: 200, body: draftOf(result.draft) };
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/workflows/{workflow_id}/draft',
      name: 'deleteDraft',
      summary: 'Delete the draft; its completed proposals are superseded',
      tag,
      answers: { 204: null },
      errors: ['not_found', 'draft_not_found'],
      async handle({ db, identity, params }) {
        const result = await deleteDraft(db, {
          workflowId: params.workflow_id ?? '',
          userId: identity.userId,
        });
        if (result === 'not_found') throw noWorkflow();
        if (result === 'no_draft') throw noDraft();
        return { status: 204 };
      },
    }),
  ];
}
