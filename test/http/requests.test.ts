import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { type Api, createApi } from '../support/api.js';
import { eventually, until } from '../support/until.js';

/**
 * Sends bytes as they are, in pieces, and collects what comes back: until the server closes, or has answered and, `settled`,
 * said nothing more for a moment. `left` goes away while it is still heard.
 */
const raw = async (
  api: Api,
  pieces: (string | Buffer)[],
  ends: 'closed' | 'settled' | 'left' = 'settled',
) => {
  const socket = net.connect(api.server.port, '127.0.0.1');
  let text = '';
  let closed = false;
  socket.on('data', (chunk) => {
    text += chunk.toString();
  });
  socket.on('close', () => {
    closed = true;
  });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  for (const piece of pieces) {
    socket.write(piece);
    await wait(20);
  }
  if (ends !== 'left') await until(() => closed || (text !== '' && ends === 'settled'));
  if (ends === 'settled' && !closed) await wait(80);
  socket.destroy();
  return { text, closed, status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0) };
};
const head = (lines: string[]) => `${lines.join('\r\n')}\r\n\r\n`;

t.test('framing that a proxy could read differently is refused and the connection ended', async (t) => {
  const api = await createApi(t);
  const post = ['POST /api/workflows HTTP/1.1', 'Host: x', 'Content-Type: application/json'];
  for (const [name, request] of [
    ['two lengths', head([...post, 'Content-Length: 2', 'Content-Length: 5'])],
    ['two hosts', head(['GET /health HTTP/1.1', 'Host: a', 'Host: b'])],
    ['an odd transfer encoding', head([...post, 'Transfer-Encoding: gzip, chunked'])],
    ['length and chunks', head([...post, 'Content-Length: 2', 'Transfer-Encoding: chunked'])],
    [
      'two credentials',
      head(['GET /api/workflows HTTP/1.1', 'Host: x', 'Authorization: Bearer a', 'Authorization: Bearer b']),
    ],
  ] as const) {
    const answer = await raw(api, [request], 'closed');
    t.equal(answer.status, 400, name);
    t.ok(answer.closed, `${name}: closed`);
  }
  for (const request of [
    head(['GET /health HTTP/1.1']),
    'NONSENSE\r\n\r\n',
    head(['GET /health HTTP/1.1', 'Host: x', ' folded: y']),
  ]) {
    t.not((await raw(api, [request])).status, 200, request);
  }
  t.equal((await api.call(null, 'GET', '/health')).status, 200);
});

t.test('what follows a refused request in the same bytes is never done', async (t) => {
  const api = await createApi(t);
  const hidden = JSON.stringify({ name: 'smuggled' });
  const second =
    head([
      'POST /api/workflows HTTP/1.1',
      'Host: x',
      `Authorization: Bearer ${await api.token('ada')}`,
      'Content-Type: application/json',
      `Content-Length: ${hidden.length}`,
    ]) + hidden;
  const upgrade = [
    'GET /api/ws/refinements/x HTTP/1.1',
    'Host: x',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];
  for (const first of [
    `${head(['POST /api/workflows HTTP/1.1', 'Host: x', 'Content-Length: 2', 'Content-Length: 999'])}{}`,
    `${head(['POST /api/workflows HTTP/1.1', 'Host: x', 'Transfer-Encoding: xchunked'])}0\r\n\r\n`,
    head(['GET /health HTTP/1.1', 'Host: a', 'Host: b']),
    head([...upgrade, 'Host: y']),
  ]) {
    const answer = await raw(api, [first + second], 'closed');
    t.ok(answer.closed, first);
    t.notMatch(answer.text, /HTTP\/1\.1 2/, first);
  }
  const list = await api.call('ada', 'GET', '/api/workflows');
  t.same(list.body.items, []);
});

t.test('headers over the limit are 431 whether they come at once or in pieces', async (t) => {
  const api = await createApi(t, { http: { headerBytes: 4096 } });
  const big = `X-Big: ${'x'.repeat(4200)}`;
  const request = head(['GET /health HTTP/1.1', 'Host: x', big]);
  t.equal((await raw(api, [request])).status, 431);
  const pieces = await raw(api, [request.slice(0, 2000), request.slice(2000, 3500), request.slice(3500)]);
  t.not(pieces.status, 200);
  t.equal(
    (await raw(api, [head(['GET /health HTTP/1.1', 'Host: x', `X-Big: ${'x'.repeat(2000)}`])])).status,
    200,
  );
});

t.test('a body over the limit is 413, by its announced length and while it arrives', async (t) => {
  const api = await createApi(t, { http: { bodyBytes: 1000 } });
  const token = await api.token('ada');
  const lines = [
    'POST /api/workflows HTTP/1.1',
    'Host: x',
    'Content-Type: application/json',
    `Authorization: Bearer ${token}`,
  ];
  const announced = await raw(api, [head([...lines, 'Content-Length: 1001'])], 'closed');
  t.equal(announced.status, 413);
  t.ok(announced.closed);
  const chunk = `200\r\n${' '.repeat(512)}\r\n`;
  t.equal(
    (await raw(api, [head([...lines, 'Transfer-Encoding: chunked']), chunk, chunk, chunk])).status,
    413,
  );
  const body = JSON.stringify({ name: 'Agent' });
  const pieces = [
    head([...lines, 'Transfer-Encoding: chunked']),
    `5\r\n${body.slice(0, 5)}\r\n`,
    `${(body.length - 5).toString(16)}\r\n${body.slice(5)}\r\n`,
    '0\r\n\r\n',
  ];
  t.equal((await raw(api, pieces)).status, 201, 'one that comes in pieces is read');
});

t.test(
  'a body that does not arrive in time is refused, and one that is broken off leaves nothing behind',
  async (t) => {
    const linesOf = async (api: Api) => [
      'POST /api/workflows HTTP/1.1',
      'Host: x',
      'Content-Type: application/json',
      `Authorization: Bearer ${await api.token('ada')}`,
      'Content-Length: 20',
    ];
    const hasty = await createApi(t, { bodyDeadlineMs: 150 });
    t.equal((await raw(hasty, [head(await linesOf(hasty)), '{"na'])).status, 400);
    const api = await createApi(t);
    await raw(api, [head(await linesOf(api)), '{"na'], 'left');
    await eventually('it is told', () => api.logs.some((line) => line.status === 'aborted'));
    t.equal((await api.call('ada', 'GET', '/api/workflows')).body.items.length, 0);
  },
);

t.test('a body of brackets or of countless members is refused before it holds up anybody', async (t) => {
  const api = await createApi(t);
  const many = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 'a value of some length']));
  const bodies = [
    '['.repeat(3_000_000) + ']'.repeat(3_000_000),
    `${'{"a":'.repeat(1_000_000)}1${'}'.repeat(1_000_000)}`,
    JSON.stringify({ name: 'x', files: many(200_000) }),
  ];
  for (const body of bodies) {
    const answer = await api.call('ada', 'POST', '/api/workflows', { body });
    // So says who counts brackets and commas; nothing was parsed.
    const errors = [{ path: '', message: /^must (be nested|hold) at most/ }];
    t.match(answer, { status: 422, body: { code: 'validation_failed', errors } });
  }
  // Text is not looked into: brackets and commas in a file are its own affair.
  const files = { '/a.md': '[{,"\\'.repeat(50_000) };
  const made = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'x', files } });
  t.equal(made.status, 201, made.text);
});

t.test('bodies that are no JSON in UTF-8 are 400, and those of another type 415', async (t) => {
  const api = await createApi(t);
  const post = (body: string | Buffer, type = 'application/json') =>
    fetch(`${api.url}/api/workflows`, {
      method: 'POST',
      body: typeof body === 'string' ? body : new Uint8Array(body),
      headers: { 'content-type': type, authorization: `Bearer ${token}`, connection: 'close' },
    });
  const token = await api.token('ada');
  for (const body of [
    '{',
    '{"name":"x",}',
    '{"name":"x","__proto__":{"admin":true}}',
    '{"name":"x","constructor":{"prototype":{"a":1}}}',
    Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]),
    Buffer.from('{"name":"\xe4"}', 'latin1'),
  ]) {
    const answer = await post(body);
    t.equal(answer.status, 400, String(body));
    t.match(await answer.json(), { code: 'malformed_json' });
  }
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'application/json; charset=latin1',
  ]) {
    t.equal((await post('{"name":"x"}', type)).status, 415, type);
  }
  for (const type of [
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/merge-patch+json',
    'application/json;charset="UTF-8"',
  ]) {
    t.equal((await post('{"name":"x"}', type)).status, 201, type);
  }
  t.equal((await post('')).status, 422, 'no body is an empty object');
});

t.test(
  'unknown addresses are 404, known ones with another method 405 with Allow, and all of them problems',
  async (t) => {
    const api = await createApi(t);
    const lost = await api.call(null, 'GET', '/nothing?x=1', { headers: { 'x-request-id': 'trace-me.1' } });
    t.equal(lost.status, 404);
    t.equal(lost.headers.get('content-type'), 'application/problem+json');
    t.same(Object.keys(lost.body).sort(), [
      'code',
      'detail',
      'instance',
      'request_id',
      'status',
      'title',
      'type',
    ]);
    t.match(lost.body, { code: 'not_found', instance: '/nothing', request_id: 'trace-me.1' });
    t.equal(lost.headers.get('x-request-id'), 'trace-me.1');
    for (const path of [
      '/api/workflows/',
      '//api/workflows',
      '/API/workflows',
      '/api/../health',
      '/api/ws/refinements/x',
    ]) {
      t.equal((await raw(api, [head([`GET ${path} HTTP/1.1`, 'Host: x'])])).status, 404, path);
    }
    const wrong = await api.call(null, 'DELETE', '/api/workflows');
    t.equal(wrong.status, 405);
    t.equal(wrong.headers.get('allow'), 'GET, HEAD, OPTIONS, POST');
    t.equal((await raw(api, [head(['BREW /api/workflows HTTP/1.1', 'Host: x'])])).status, 405);
  },
);

t.test('HEAD is answered like GET without the body, OPTIONS with what is allowed', async (t) => {
  const api = await createApi(t);
  const answer = await raw(api, [head(['HEAD /openapi.json HTTP/1.1', 'Host: x'])]);
  t.equal(answer.status, 200);
  t.match(answer.text, /content-length: [1-9]\d{3}/i);
  t.ok(answer.text.endsWith('\r\n\r\n'));
  const options = await api.call(null, 'OPTIONS', '/api/workflows');
  t.equal(options.status, 204);
  t.equal(options.headers.get('allow'), 'GET, HEAD, OPTIONS, POST');
});

t.test('an odd request id is replaced by ours', async (t) => {
  const api = await createApi(t);
  for (const id of ['a b', 'x'.repeat(129), '{"a":1}']) {
    const answer = await api.call(null, 'GET', '/health', { headers: { 'x-request-id': id } });
    t.match(answer.headers.get('x-request-id'), /^[0-9a-f-]{36}$/, id);
  }
});

t.test('only listed origins may call, and only they are told so', async (t) => {
  const api = await createApi(t, { http: { corsAllowedOrigins: ['https://ide.example'] }, production: true });
  const good = await api.call('ada', 'GET', '/api/workflows', { headers: { origin: 'https://ide.example' } });
  t.equal(good.headers.get('access-control-allow-origin'), 'https://ide.example');
  t.match(good.headers.get('access-control-expose-headers'), /X-Request-Id/);
  t.equal(good.headers.get('vary'), 'Origin');
  t.equal(good.headers.get('x-content-type-options'), 'nosniff');
  t.equal(good.headers.get('cache-control'), 'no-store');
  t.match(good.headers.get('strict-transport-security'), /max-age/);
  const none = await api.call('ada', 'GET', '/api/workflows');
  t.equal(none.status, 200);
  t.equal(none.headers.get('access-control-allow-origin'), null);
  for (const origin of [
    'https://evil.example',
    'null',
    'https://ide.example.evil.example',
    'HTTPS://IDE.EXAMPLE',
  ]) {
    const bad = await api.call('ada', 'GET', '/api/workflows', { headers: { origin } });
    t.match(bad, { status: 403, body: { code: 'origin_not_allowed' } }, origin);
    t.equal(bad.headers.get('access-control-allow-origin'), null, origin);
  }
  const preflight = (origin: string) =>
    raw(api, [
      head([
        'OPTIONS /api/workflows HTTP/1.1',
        'Host: x',
        `Origin: ${origin}`,
        'Access-Control-Request-Method: POST',
        'Access-Control-Request-Headers: authorization',
      ]),
    ]);
  const allowed = await preflight('https://ide.example');
  t.equal(allowed.status, 204);
  t.match(allowed.text, /Access-Control-Allow-Methods: GET, HEAD, OPTIONS, POST/);
  t.match(allowed.text, /Access-Control-Allow-Headers: .*Idempotency-Key/);
  t.equal((await preflight('https://evil.example')).status, 403);
});

t.test('calls are limited per user, and per address where no token is valid', async (t) => {
  const api = await createApi(t, { http: { requestsPerMinute: 3, unauthenticatedPerMinute: 2 } });
  const statuses = async (user: string | null, path: string, count: number) => {
    const found = [];
    for (let each = 0; each < count; each++) found.push((await api.call(user, 'GET', path)).status);
    return found;
  };
  t.same(await statuses('ada', '/api/workflows', 4), [200, 200, 200, 429]);
  t.same(await statuses('bob', '/api/workflows', 1), [200]);
  t.same(await statuses(null, '/api/workflows', 3), [401, 401, 429]);
  t.same(
    await statuses('carl', '/api/workflows', 1),
    [200],
    'a valid token from the same address still counts for its user',
  );
  t.same(await statuses(null, '/openapi.json', 1), [429]);
  t.same(await statuses(null, '/health', 5), [200, 200, 200, 200, 200]);
  const text = await api.metrics.render();
  t.match(text, /rate_limited_total\{scope="user"\} 1/);
  t.match(text, /rate_limited_total\{scope="address"\} 2/);
});

t.test('each request is one line of log and one count, without any id in a label', async (t) => {
  const api = await createApi(t);
  const { body } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'x' } });
  await api.call('ada', 'GET', `/api/workflows/${body.id}`, { headers: { 'x-request-id': 'r-1' } });
  await api.call(null, 'GET', '/api/workflows/nonsense?token=secret');
  const traceId = 'a'.repeat(32);
  await api.call('ada', 'GET', '/api/workflows', {
    headers: { 'x-request-id': 'r-2', traceparent: `00-${traceId}-${'b'.repeat(16)}-01` },
  });
  t.equal(api.logs.find((each) => each.request_id === 'r-2')?.trace_id, traceId, 'the trace is continued');
  const line = api.logs.find((each) => each.request_id === 'r-1');
  t.match(line, {
    msg: 'request',
    method: 'GET',
    route: '/api/workflows/{workflow_id}',
    status: '200',
    user_id: 'ada',
  });
  t.notMatch(JSON.stringify(api.logs), 'secret');
  const text = await api.metrics.render();
  t.match(
    text,
    /http_requests_total\{method="GET",route="\/api\/workflows\/\{workflow_id\}",status="200"\} 1/,
  );
  t.notMatch(text, body.id);
  t.match(text, /active_users\{window="5m"\} 1/);
});

t.test('metrics are served on their own port only', async (t) => {
  const api = await createApi(t);
  t.equal((await api.call(null, 'GET', '/metrics')).status, 404);
  const metrics = await fetch(`http://127.0.0.1:${api.server.metricsPort}/metrics`, {
    headers: { connection: 'close' },
  });
  t.equal(metrics.status, 200);
  t.match(metrics.headers.get('content-type'), /text\/plain/);
  t.match(await metrics.text(), /ide_orchestrator_proposals\{status="processing"\} 0/);
  const other = await fetch(`http://127.0.0.1:${api.server.metricsPort}/health`, {
    headers: { connection: 'close' },
  });
  t.equal(other.status, 404);
});

t.test('a port that is taken is said so, and nothing is left listening', async (t) => {
  const api = await createApi(t);
  await t.rejects(createApi(t, { http: { port: api.server.port } }), { code: 'EADDRINUSE' });
  await t.rejects(createApi(t, { http: { metricsPort: api.server.metricsPort } }), { code: 'EADDRINUSE' });
});

t.test('a stopping server is not ready, answers what it has begun, and then nothing more', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'x' } });
  api.server.drain();
  t.match(await api.call(null, 'GET', '/ready'), {
    status: 503,
    body: { status: 'not_ready', stopping: true },
  });
  t.equal((await api.call(null, 'GET', '/health')).status, 200);
  let answer = () => {};
  api.directory.start = () =>
    new Promise((resolve) => {
      answer = () => resolve('started');
    });
  const begun = api.call('ada', 'POST', `/api/workflows/${workflow.id}/refinements`, {
    body: { user_prompt: 'x' },
  });
  await eventually('it has begun', () => api.directory.started.length === 1);
  const stopping = api.server.stop(30_000);
  answer();
  t.equal((await begun).status, 202);
  await stopping;
  await t.rejects(api.call(null, 'GET', '/health'));
});

t.test('the runtime is named by readiness and does not decide it', async (t) => {
  const api = await createApi(t);
  api.directory.retryAfterSeconds = 9;
  t.match(await api.call(null, 'GET', '/ready'), {
    status: 200,
    body: { postgresql: 'up', pending_migrations: 0, runtime: { status: 'away', retry_after_seconds: 9 } },
  });
});
