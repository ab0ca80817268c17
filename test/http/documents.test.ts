import { httpErrors, ownFrames, runFrames, viewerMessages } from '@ide-orchestrator/protocol';
import { Validator } from '@seriousme/openapi-schema-validator';
import t from 'tap';
import { createApi } from '../support/api.js';

/** protocol.md §2, the calls of the table. */
const calls = `
POST /api/workflows
GET /api/workflows
GET /api/workflows/{workflow_id}
PATCH /api/workflows/{workflow_id}
DELETE /api/workflows/{workflow_id}
GET /api/workflows/{workflow_id}/draft
PUT /api/workflows/{workflow_id}/draft
DELETE /api/workflows/{workflow_id}/draft
POST /api/workflows/{workflow_id}/versions
GET /api/workflows/{workflow_id}/versions
GET /api/workflows/{workflow_id}/versions/{version_number}
POST /api/workflows/{workflow_id}/deploy
POST /api/workflows/{workflow_id}/refinements
GET /api/workflows/{workflow_id}/proposals
GET /api/proposals/{proposal_id}
GET /api/proposals/{proposal_id}/diff
POST /api/proposals/{proposal_id}/approve
POST /api/proposals/{proposal_id}/reject
POST /api/proposals/{proposal_id}/cancel
POST /api/proposals/{proposal_id}/retry
GET /api/proposals/{proposal_id}/audit
PUT /api/proposals/{proposal_id}/access/{user_id}
DELETE /api/proposals/{proposal_id}/access/{user_id}
POST /api/ws/tickets
GET /health
GET /ready`
  .trim()
  .split('\n');

t.test(
  'the served OpenAPI document is valid, names every call, and nothing of the schema library',
  async (t) => {
    const api = await createApi(t);
    const answer = await api.call(null, 'GET', '/openapi.json');
    t.equal(answer.status, 200);
    t.match(answer.headers.get('content-type'), 'application/json');
    const verdict = await new Validator().validate(structuredClone(answer.body));
    t.same(verdict.errors ?? [], []);
    t.ok(verdict.valid);
    t.equal(answer.body.openapi, '3.1.0');
    t.notMatch(answer.text, '_def');
    t.notMatch(answer.text, '"~standard"');
    const named = Object.entries<Record<string, { operationId: string }>>(answer.body.paths).flatMap(
      ([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    t.same(named.sort(), [...calls].sort());
    const start = answer.body.paths['/api/workflows/{workflow_id}/refinements'].post;
    t.match(start.parameters, [
      { in: 'path', name: 'workflow_id' },
      { in: 'header', name: 'Idempotency-Key' },
    ]);
    t.equal(start.requestBody.required, true);
    t.equal(
      start.requestBody.content['application/json'].schema.$ref,
      '#/components/schemas/StartRefinement',
    );
    t.match(start.responses, { 202: {}, 401: {}, 404: {}, 409: {}, 422: {}, 429: {}, 503: {} });
    t.same(start.security, [{ bearer: [] }]);
    t.same(answer.body.paths['/health'].get.security, []);
  },
);

t.test('the AsyncAPI document has every frame, and its references lead somewhere', async (t) => {
  const api = await createApi(t);
  const { body } = await api.call(null, 'GET', '/asyncapi.json');
  t.equal(body.asyncapi, '3.0.0');
  t.ok(body.info.title && body.info.version);
  const names = [...ownFrames, ...runFrames, ...viewerMessages].map((schema) => schema.meta()?.id);
  t.same(Object.keys(body.components.messages).sort(), [...names].sort());
  const follow = (reference: string) =>
    reference
      .slice(2)
      .split('/')
      .reduce((at, key) => at?.[key.replaceAll('~1', '/')], body);
  const references = JSON.stringify(body).match(/"\$ref":"(#\/[^"]+)"/g) ?? [];
  t.ok(references.length > 20);
  for (const reference of references) t.ok(follow(JSON.parse(`{${reference}}`).$ref), reference);
  t.match(body.components.messages.OnSubscribed.payload, {
    type: 'object',
    properties: { event_type: { const: 'on_subscribed' } },
  });
  t.same(body.operations.sendMessages.messages.length, viewerMessages.length);
});

t.test('the page for people names every error, and its policy lets no script in', async (t) => {
  const api = await createApi(t);
  const answer = await api.call(null, 'GET', '/docs');
  t.equal(answer.status, 200);
  t.match(answer.headers.get('content-type'), /text\/html/);
  t.match(answer.headers.get('content-security-policy'), /^default-src 'none'; style-src 'sha256-/);
  for (const code of Object.keys(httpErrors)) t.match(answer.text, code);
  t.notMatch(answer.text, /<script/);
});
