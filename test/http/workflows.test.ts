import { randomUUID } from 'node:crypto';
import t from 'tap';
import { createApi } from '../support/api.js';

t.test('a workflow is made, read, listed, renamed and deleted by its owner', async (t) => {
  const api = await createApi(t);
  const made = await api.call('ada', 'POST', '/api/workflows', {
    body: { name: ' Agent ', files: { '/a.md': '# A' } },
  });
  t.equal(made.status, 201);
  t.match(made.body, { name: 'Agent', description: null, production_version: null });
  const path = made.headers.get('location') ?? '';
  t.equal(path, `/api/workflows/${made.body.id}`);
  t.same((await api.call('ada', 'GET', path)).body, made.body);
  t.same((await api.call('ada', 'GET', '/api/workflows')).body, { items: [made.body], next_cursor: null });

  const renamed = await api.call('ada', 'PATCH', path, { body: { name: 'Better', description: 'd' } });
  t.match(renamed.body, { name: 'Better', description: 'd' });
  t.match((await api.call('ada', 'PATCH', path, { body: { description: null } })).body, {
    name: 'Better',
    description: null,
  });

  t.equal((await api.call('ada', 'DELETE', path)).status, 204);
  t.equal((await api.call('ada', 'GET', path)).status, 404);
  t.equal((await api.call('ada', 'DELETE', path)).status, 404);
  t.equal((await api.call('ada', 'PATCH', path, { body: { name: 'x' } })).status, 404);
});

t.test('a list goes on at its cursor, newest first, and refuses a cursor of somebody’s making', async (t) => {
  const api = await createApi(t);
  const names = ['one', 'two', 'three'];
  for (const name of names) await api.call('ada', 'POST', '/api/workflows', { body: { name } });
  const first = await api.call('ada', 'GET', '/api/workflows?limit=2');
  t.equal(first.body.items.length, 2);
  const second = await api.call('ada', 'GET', `/api/workflows?limit=2&cursor=${first.body.next_cursor}`);
  t.equal(second.body.next_cursor, null);
  const seen = [...first.body.items, ...second.body.items].map((item) => item.name);
  t.same(seen.sort(), [...names].sort());
  for (const query of [
    'cursor=zzz',
    'cursor=',
    'limit=0',
    'limit=101',
    'limit=x',
    'limit=1&limit=2',
    'sort=name',
  ]) {
    const refused = await api.call('ada', 'GET', `/api/workflows?${query}`);
    t.equal(refused.status, 422, query);
    t.equal(refused.body.code, 'validation_failed');
    t.ok(refused.body.errors[0].path, query);
  }
});

t.test('a cursor that PostgreSQL could not read is refused like any other forgery', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const id = '00000000-0000-4000-8000-000000000000';
  const timed = [
    ['0000-01-01T00:00:00Z', id],
    ['9999-12-31T23:59:59+23:59', id],
    ['2020-01-01T00:00:00+16:00', id],
  ];
  const lists: [string, unknown[]][] = [
    ['/api/workflows', timed],
    [`/api/workflows/${workflow.id}/proposals`, timed],
    [`/api/workflows/${workflow.id}/versions`, [[2 ** 31], [Number.MAX_SAFE_INTEGER], [0]]],
  ];
  for (const [path, places] of lists) {
    for (const place of places) {
      const cursor = Buffer.from(JSON.stringify(place)).toString('base64url');
      const answer = await api.call('ada', 'GET', `${path}?cursor=${cursor}`);
      t.match(answer, { status: 422, body: { errors: [{ path: 'cursor' }] } }, `${path} ${place}`);
    }
  }
});

t.test('what belongs to somebody else, was never made or cannot be an id is 404 alike', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', {
    body: { name: 'Agent', files: {} },
  });
  for (const id of [workflow.id, randomUUID(), 'nonsense', '%00', '%E0%A4', "1' OR '1'='1"]) {
    for (const [method, rest, body] of [
      ['GET', '', undefined],
      ['PATCH', '', { name: 'x' }],
      ['DELETE', '', undefined],
      ['GET', '/draft', undefined],
      ['PUT', '/draft', { base_revision: 0, files: {} }],
      ['DELETE', '/draft', undefined],
      ['POST', '/versions', undefined],
      ['GET', '/versions', undefined],
      ['GET', '/versions/1', undefined],
      ['POST', '/deploy', { version_number: 1 }],
      ['POST', '/refinements', { user_prompt: 'x' }],
      ['GET', '/proposals', undefined],
    ] as const) {
      const answer = await api.call(
        'eve',
        method,
        `/api/workflows/${encodeURI(id)}${rest}`,
        body === undefined ? {} : { body },
      );
      t.equal(answer.status, 404, `${method} ${id}${rest}`);
      t.equal(answer.body.code, 'not_found', `${method} ${id}${rest}`);
    }
  }
  t.equal((await api.call('ada', 'GET', `/api/workflows/${workflow.id}`)).status, 200);
});

t.test('a draft is written by merge, and a conflict names the files that moved', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const path = `/api/workflows/${workflow.id}/draft`;
  t.equal((await api.call('ada', 'GET', path)).body.code, 'draft_not_found');
  t.equal((await api.call('ada', 'DELETE', path)).body.code, 'draft_not_found');
  const first = await api.call('ada', 'PUT', path, {
    body: { base_revision: 0, files: { '/a.md': 'a', '/b.json': '{}', '/c': 'c' } },
  });
  t.equal(first.status, 200);
  t.match(first.body.files, {
    '/a.md': { content: 'a', type: 'text/markdown', revision: 1 },
    '/b.json': { type: 'application/json' },
    '/c': { type: 'text/plain', sha256: /^[0-9a-f]{64}$/ },
  });
  const second = await api.call('ada', 'PUT', path, {
    body: { base_revision: 1, files: { '/a.md': 'A', '/c': null } },
  });
  t.same(Object.keys(second.body.files).sort(), ['/a.md', '/b.json']);
  const late = await api.call('ada', 'PUT', path, {
    body: { base_revision: 1, files: { '/a.md': 'mine', '/b.json': '[]' } },
  });
  t.equal(late.status, 409);
  t.match(late.body, { code: 'draft_conflict', conflicts: ['/a.md'] });
  t.equal((await api.call('ada', 'DELETE', path)).status, 204);
  t.equal((await api.call('ada', 'GET', path)).status, 404);
});

t.test('a draft does not grow beyond what a run can carry, however small the steps', async (t) => {
  const api = await createApi(t);
  const filesOf = (name: string, count: number, text: string) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`/${name}${index}`, text]));
  const body = { name: 'Agent', files: filesOf('a', 400, 'x') };
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body });
  const put = (files: Record<string, string | null>) =>
    api.call('ada', 'PUT', `/api/workflows/${workflow.id}/draft`, { body: { base_revision: 99, files } });
  t.match(await put(filesOf('b', 101, 'x')), {
    status: 422,
    body: { code: 'validation_failed', errors: [{ path: 'files', message: /500 files/ }] },
  });
  t.equal((await put(filesOf('b', 100, 'x'))).status, 200);
  for (const path of ['/a0', '/a1', '/a2']) {
    const answer = await put({ [path]: 'é'.repeat(3_000_000) });
    t.equal(answer.status, path === '/a2' ? 422 : 200, path);
  }
  t.equal((await put({ '/a0': null })).status, 200);
  t.equal((await put({ '/a2': 'é'.repeat(3_000_000) })).status, 200);
});

t.test('versions are published, listed, read and deployed', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const path = `/api/workflows/${workflow.id}`;
  t.equal((await api.call('ada', 'POST', `${path}/versions`)).body.code, 'draft_not_found');
  await api.call('ada', 'PUT', `${path}/draft`, { body: { base_revision: 0, files: { '/a.md': 'a' } } });
  const made = await api.call('ada', 'POST', `${path}/versions`, { body: {} });
  t.equal(made.status, 201);
  t.match(made.body, { version_number: 1, created_by_user_id: 'ada', files: { '/a.md': { content: 'a' } } });
  await api.call('ada', 'POST', `${path}/versions`);
  const list = await api.call('ada', 'GET', `${path}/versions?limit=1`);
  t.match(list.body.items, [{ version_number: 2 }]);
  t.notOk('files' in list.body.items[0]);
  t.match((await api.call('ada', 'GET', `${path}/versions?limit=1&cursor=${list.body.next_cursor}`)).body, {
    items: [{ version_number: 1 }],
    next_cursor: null,
  });
  t.same((await api.call('ada', 'GET', `${path}/versions/1`)).body, made.body);
  t.equal((await api.call('ada', 'GET', `${path}/versions/3`)).body.code, 'version_not_found');
  t.equal((await api.call('ada', 'GET', `${path}/versions/0`)).body.code, 'not_found');
  t.equal((await api.call('ada', 'GET', `${path}/versions/99999999999`)).body.code, 'not_found');
  t.equal(
    (await api.call('ada', 'POST', `${path}/deploy`, { body: { version_number: 9 } })).body.code,
    'version_not_found',
  );
  t.match((await api.call('ada', 'POST', `${path}/deploy`, { body: { version_number: 1 } })).body, {
    id: workflow.id,
    production_version: 1,
  });
});
