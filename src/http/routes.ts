import { z } from 'zod/v4';
import { accessRoutes } from './access.js';
import { asyncApiOf } from './asyncapi.js';
import { decisionRoutes } from './decisions.js';
import { docsPageOf, docsPolicy } from './docs-page.js';
import { draftRoutes } from './drafts.js';
import { openApiOf } from './openapi.js';
import { operationRoutes } from './operations.js';
import { proposalRoutes } from './proposals.js';
import { refinementRoutes } from './refinements.js';
import { type Route, route } from './route.js';
import { ticketRoutes } from './tickets.js';
import { versionRoutes } from './versions.js';
import { workflowRoutes } from './workflows.js';

export type RoutesDeps = Parameters<typeof refinementRoutes>[0] &
  Parameters<typeof decisionRoutes>[0] &
  Parameters<typeof ticketRoutes>[0] &
  Parameters<typeof operationRoutes>[0];

const info = { title: 'IDE orchestrator', version: '0.1.0' };

/** The table of everything that is served over HTTP, but for the metrics and the viewers' socket. */
export function routesOf(deps: RoutesDeps): Route[] {
  const api = [
    ...workflowRoutes(deps),
    ...draftRoutes(),
    ...versionRoutes(),
    ...refinementRoutes(deps),
    ...proposalRoutes(),
    ...decisionRoutes(deps),
    ...accessRoutes(deps),
    ...ticketRoutes(deps),
    ...operationRoutes(deps),
  ];
  return [...api, ...documentRoutes(api)];
}

/** Contracts are made once: the table does not change while the process lives. */
function documentRoutes(api: readonly Route[]): Route[] {
  const openApi = JSON.stringify(openApiOf(api, info));
  const asyncApi = JSON.stringify(asyncApiOf(info));
  const page = docsPageOf(api, info);
  const document = (
    path: string,
    name: string,
    summary: string,
    body: string,
    headers: Record<string, string>,
  ) =>
    route({
      method: 'GET',
      path,
      name,
      summary,
      tag: 'documents',
      access: 'open',
      answers: { 200: z.unknown() },
      handle: async () => ({
        status: 200,
        body,
        headers: { ...headers, 'Cache-Control': 'public, max-age=300' },
      }),
    });
  const json = { 'Content-Type': 'application/json' };
  return [
    document('/openapi.json', 'openApi', 'The calls', openApi, json),
    document('/asyncapi.json', 'asyncApi', 'The socket', asyncApi, json),
    document('/docs', 'docs', 'Both for people', page, {
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': docsPolicy,
    }),
  ];
}
