import {
  createWorkflowRequest,
  pageOf,
  pageQuery,
  updateWorkflowRequest,
  workflow,
} from '@ide-orchestrator/protocol';
import {
  createWorkflow,
  deleteWorkflow,
  findWorkflow,
  listWorkflows,
  updateWorkflow,
} from '../db/workflows.js';
import { AppError } from '../errors.js';
import { pageOfRows, timeCursorOf } from './page.js';
import { type Call, type Route, route } from './route.js';
import { workflowOf } from './wire.js';

const tag = 'workflows';
export const noWorkflow = () => new AppError('not_found', 'There is no such workflow.');

/** Workflows: made, listed, renamed, deleted by their owner, and nobody else's business. */
export function workflowRoutes(deps: { ids: () => string }): Route[] {
  return [
    route({
      method: 'POST',
      path: '/api/workflows',
      name: 'createWorkflow',
      summary: 'Make a workflow; files make its draft',
      tag,
      body: createWorkflowRequest,
      answers: { 201: workflow },
      idempotency: 'answer',
      async handle({ db, identity, body }) {
        const row = await createWorkflow(db, {
          id: deps.ids(),
          userId: identity.userId,
          name: body.name,
          description: body.description ?? null,
          files: body.files ?? null,
        });
        return { status: 201, body: workflowOf(row), headers: { Location: `/api/workflows/${row.id}` } };
      },
    }),
    route({
      method: 'GET',
      path: '/api/workflows',
      name: 'listWorkflows',
      summary: 'The caller’s workflows, newest first',
      tag,
      query: pageQuery,
      answers: { 200: pageOf(workflow) },
      async handle({ db, identity, query }) {
        const rows = await listWorkflows(db, {
          userId: identity.userId,
          limit: query.limit + 1,
          cursor: timeCursorOf(query.cursor),
        });
        const body = pageOfRows(rows, query.limit, {
          item: workflowOf,
          place: (row) => [row.createdAt, row.id],
        });
        return { status: 200, body };
      },
    }),
    route({
      method: 'GET',
      path: '/api/workflows/{workflow_id}',
      name: 'getWorkflow',
      summary: 'One workflow',
      tag,
      answers: { 200: workflow },
      errors: ['not_found'],
      async handle(call) {
        return { status: 200, body: workflowOf(await ownWorkflow(call)) };
      },
    }),
    route({
      method: 'PATCH',
      path: '/api/workflows/{workflow_id}',
      name: 'updateWorkflow',
      summary: 'Rename or describe a workflow',
      tag,
      body: updateWorkflowRequest,
      answers: { 200: workflow },
      errors: ['not_found'],
      async handle({ db, identity, params, body }) {
        const row = await updateWorkflow(db, {
          workflowId: params.workflow_id ?? '',
          userId: identity.userId,
          name: body.name,
          description: body.description,
        });
        if (row === null) throw noWorkflow();
        return { status: 200, body: workflowOf(row) };
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/workflows/{workflow_id}',
      name: 'deleteWorkflow',
      summary: 'Delete a workflow: its runs are cancelled, everything in it is gone',
      tag,
      answers: { 204: null },
      errors: ['not_found'],
      async handle({ db, identity, params }) {
        const deleted = await deleteWorkflow(db, {
          workflowId: params.workflow_id ?? '',
          userId: identity.userId,
        });
        if (!deleted) throw noWorkflow();
        return { status: 204 };
      },
    }),
  ];
}

/** The workflow that the path names, for its owner; throws AppError `not_found` for all others alike. */
export async function ownWorkflow(call: Pick<Call<unknown, unknown>, 'db' | 'params' | 'identity'>) {
  const { db, params, identity } = call;
  const found = await findWorkflow(db, { workflowId: params.workflow_id ?? '', userId: identity.userId });
  if (found === null) throw noWorkflow();
  return found;
}
