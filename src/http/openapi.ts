import { type HttpErrorCode, httpErrors, problem } from '@ide-orchestrator/protocol';
import { z } from 'zod/v4';
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi';
import type { Route } from './route.js';

const everyCall: readonly HttpErrorCode[] = [
  'malformed_request',
  'rate_limited',
  'headers_too_large',
  'internal_error',
];
const tokenCall: readonly HttpErrorCode[] = [
  'unauthenticated',
  'origin_not_allowed',
  'database_unavailable',
  'overloaded',
];
const bodyCall: readonly HttpErrorCode[] = [
  'malformed_json',
  'validation_failed',
  'payload_too_large',
  'unsupported_media_type',
];
const keyCall: readonly HttpErrorCode[] = [
  'idempotency_in_flight',
  'idempotency_mismatch',
  'validation_failed',
];

/** The OpenAPI 3.1 document of the very table that is served. */
export function openApiOf(routes: readonly Route[], info: { title: string; version: string }): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const route of routes) {
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operationOf(route) };
  }
  return createDocument({
    openapi: '3.1.0',
    info: {
      ...info,
      description: 'Errors are application/problem+json (RFC 9457); `code` is stable.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map((route) => route.tag))].map((name) => ({ name })),
    paths,
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
  });
}

function operationOf(route: Route): ZodOpenApiOperationObject {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? '');
  const responses: ZodOpenApiOperationObject['responses'] = {};
  for (const [status, schema] of Object.entries(route.answers)) {
    responses[status as '200'] = {
      description: status === '204' ? 'Done' : 'Success',
      ...contentOf(schema),
    };
  }
  for (const [status, codes] of errorsByStatus(route)) {
    if (responses[status as '400'] !== undefined) continue;
    responses[status as '400'] = {
      description: codes.map((code) => `\`${code}\`: ${httpErrors[code].title}`).join('; '),
      content: { 'application/problem+json': { schema: problem } },
      ...(status === '429' || status === '503'
        ? { headers: z.object({ 'Retry-After': z.string().meta({ description: 'Seconds' }) }) }
        : {}),
    };
  }
  return {
    operationId: route.name,
    summary: route.summary,
    tags: [route.tag],
    ...(route.access === 'token' ? { security: [{ bearer: [] }] } : { security: [] }),
    requestParams: {
      ...(names.length === 0
        ? {}
        : { path: z.object(Object.fromEntries(names.map((name) => [name, pathSchemaOf(name)]))) }),
      ...(route.query instanceof z.ZodObject ? { query: route.query } : {}),
      ...(route.idempotency === 'none'
        ? {}
        : {
            header: z.object({
              'Idempotency-Key': z
                .string()
                .max(255)
                .optional()
                .meta({ description: 'Makes the call repeatable for 24 h' }),
            }),
          }),
    },
    ...(route.body === undefined
      ? {}
      : {
          requestBody: {
            required: !route.body.safeParse({}).success,
            content: { 'application/json': { schema: route.body } },
          },
        }),
    responses,
  };
}

function pathSchemaOf(name: string): z.ZodType {
  if (name === 'user_id') return z.string().min(1).max(255);
  return name.endsWith('_id') ? z.uuid() : z.int().min(1);
}

function contentOf(schema: z.ZodType | string | null) {
  if (schema === null) return {};
  if (typeof schema === 'string') return { content: { [schema]: { schema: z.string() } } };
  return { content: { 'application/json': { schema } } };
}

function errorsByStatus(route: Route): Map<string, HttpErrorCode[]> {
  const codes = new Set<HttpErrorCode>([
    ...(route.access === 'probe' ? [] : everyCall),
    ...(route.access === 'token' ? tokenCall : []),
    ...(route.body === undefined ? [] : bodyCall),
    ...(route.query === undefined ? [] : (['validation_failed'] as const)),
    ...(route.idempotency === 'none' ? [] : keyCall),
    ...route.errors,
  ]);
  const found = new Map<string, HttpErrorCode[]>();
  for (const code of codes) {
    const status = String(httpErrors[code].status);
    found.set(status, [...(found.get(status) ?? []), code]);
  }
  return new Map([...found].sort());
}
