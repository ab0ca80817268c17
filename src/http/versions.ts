import {
  deployRequest,
  emptyRequest,
  pageOf,
  pageQuery,
  version,
  workflow,
} from '@ide-orchestrator/protocol';
import { deployVersion, findVersion, listVersions, publishVersion } from '../db/versions.js';
import { AppError } from '../errors.js';
import { noDraft } from './drafts.js';
import { numberCursorOf, pageOfRows } from './page.js';
import { type Route, route } from './route.js';
import { versionOf, workflowOf } from './wire.js';
import { noWorkflow, ownWorkflow } from './workflows.js';

const tag = 'versions';
const noVersion = () => new AppError('version_not_found', 'This workflow has no such version.');

/** Published versions, which never change, and the one that is in production. */
export function versionRoutes(): Route[] {
  return [
    route({
      method: 'POST',
      path: '/api/workflows/{workflow_id}/versions',
      name: 'publishVersion',
      summary: 'Publish the draft as the next version; the draft stays',
      tag,
      body: emptyRequest,
      answers: { 201: version },
      errors: ['not_found', 'draft_not_found'],
      idempotency: 'answer',
      async handle({ db, identity, params }) {
        const workflowId = params.workflow_id ?? '';
        const row = await publishVersion(db, { workflowId, userId: identity.userId });
        if (row === 'not_found') throw noWorkflow();
        if (row === 'no_draft') throw noDraft();
        return {
          status: 201,
          body: versionOf(row),
          headers: { Location: `/api/workflows/${workflowId}/versions/${row.versionNumber}` },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/workflows/{workflow_id}/versions',
      name: 'listVersions',
      summary: 'Versions without their files, newest first',
      tag,
      query: pageQuery,
      answers: { 200: pageOf(version) },
      errors: ['not_found'],
      async handle(call) {
        const { db, query } = call;
        const beforeVersion = numberCursorOf(query.cursor);
        const { id: workflowId } = await ownWorkflow(call);
        const rows = await listVersions(db, { workflowId, limit: query.limit + 1, beforeVersion });
        const body = pageOfRows(rows, query.limit, { item: versionOf, place: (row) => [row.versionNumber] });
        return { status: 200, body };
      },
    }),
    route({
      method: 'GET',
      path: '/api/workflows/{workflow_id}/versions/{version_number}',
      name: 'getVersion',
      summary: 'One version with its files',
      tag,
      answers: { 200: version },
      errors: ['not_found', 'version_not_found'],
      async handle(call) {
        const { id: workflowId } = await ownWorkflow(call);
        const versionNumber = Number(call.params.version_number);
        const row = await findVersion(call.db, { workflowId, versionNumber });
        if (row === null) throw noVersion();
        return { status: 200, body: versionOf(row) };
      },
    }),
    route({
      method: 'POST',
      path: '/api/workflows/{workflow_id}/deploy',
      name: 'deployVersion',
      summary: 'Make a version the production version',
      tag,
      body: deployRequest,
      answers: { 200: workflow },
      errors: ['not_found', 'version_not_found'],
      idempotency: 'answer',
      async handle({ db, identity, params, body }) {
        const row = await deployVersion(db, {
          workflowId: params.workflow_id ?? '',
          userId: identity.userId,
          versionNumber: body.version_number,
        });
        if (row === 'not_found') throw noWorkflow();
        if (row === 'no_version') throw noVersion();
        return { status: 200, body: workflowOf(row) };
      },
    }),
  ];
}
