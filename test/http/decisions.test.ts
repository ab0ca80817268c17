import { randomUUID } from 'node:crypto';
import { type DatabasePool, sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { createPool } from '../../src/db/pool.js';
import { giveUpOwned, takeOver } from '../../src/db/threads.js';
import { type Api, createApi } from '../support/api.js';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';

const wire = (text: string) => ({ content: text.split('\n') });

/** A completed proposal of ada on a draft with /a.md and /b.md. */
const completed = async (api: Api, generated: Record<string, { content: string[] } | null>) => {
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', {
    body: { name: 'Agent', files: { '/a.md': 'one\ntwo\nthree', '/b.md': 'b' } },
  });
  const { body: started } = await api.call('ada', 'POST', `/api/workflows/${workflow.id}/refinements`, {
    body: { user_prompt: 'x' },
  });
  await api.complete(started.proposal_id, generated);
  const path = `/api/proposals/${started.proposal_id}`;
  return { workflowId: workflow.id as string, proposalId: started.proposal_id as string, path };
};

t.test('an approval applies the changed files, once, whatever the second one says', async (t) => {
  const api = await createApi(t);
  const { path, workflowId, proposalId } = await completed(api, {
    '/a.md': wire('one\n2\nthree'),
    '/b.md': wire('b'),
    '/c.md': wire('c'),
  });
  const first = await api.call('ada', 'POST', `${path}/approve`);
  t.equal(first.status, 200);
  t.same(first.body, {
    proposal_id: proposalId,
    status: 'resolved',
    resolution: 'approved',
    draft_revision: 2,
    files_applied: 2,
  });
  for (const files of [['/c.md'], [], ['/a.md', '/a.md'], ['/unknown.md']]) {
    t.same(
      (await api.call('ada', 'POST', `${path}/approve`, { body: { files } })).body,
      first.body,
      `${files}`,
    );
  }
  t.match((await api.call('ada', 'GET', `/api/workflows/${workflowId}/draft`)).body.files, {
    '/a.md': { content: 'one\n2\nthree' },
    '/c.md': { content: 'c' },
  });
  t.match(await api.call('ada', 'POST', `${path}/reject`), {
    status: 409,
    body: { code: 'already_resolved' },
  });
  t.match(await api.call('ada', 'POST', `${path}/cancel`), { status: 409, body: { code: 'not_processing' } });
  t.match(await api.metrics.render(), /proposals_resolved_total\{resolution="approved"\} 1/);
});

t.test('files that changed on both sides are a 409 that names them, until each is decided', async (t) => {
  const api = await createApi(t);
  const { path, workflowId } = await completed(api, { '/a.md': wire('theirs'), '/b.md': null });
  await api.call('ada', 'PUT', `/api/workflows/${workflowId}/draft`, {
    body: { base_revision: 1, files: { '/a.md': 'mine' } },
  });
  t.match(await api.call('ada', 'POST', `${path}/approve`), {
    status: 409,
    body: { code: 'proposal_conflict', conflicts: ['/a.md'] },
  });
  const diff = await api.call('ada', 'GET', `${path}/diff`);
  t.match(diff.body.files, [
    {
      path: '/a.md',
      status: 'conflict',
      hunks: [
        { lines: ['-mine', '\\ No newline at end of file', '+theirs', '\\ No newline at end of file'] },
      ],
    },
    { path: '/b.md', status: 'removed' },
  ]);
  for (const body of [
    { files: [] },
    { files: ['/b.md', '/b.md'] },
    { files: ['/zzz'] },
    { resolutions: { '/zzz': 'draft' } },
  ]) {
    t.equal((await api.call('ada', 'POST', `${path}/approve`, { body })).status, 422, JSON.stringify(body));
  }
  const approved = await api.call('ada', 'POST', `${path}/approve`, {
    body: { resolutions: { '/a.md': 'draft' } },
  });
  t.match(approved.body, { files_applied: 1 });
});

t.test('a diff shows unified hunks of added, modified and unchanged files', async (t) => {
  const api = await createApi(t);
  const { path } = await completed(api, {
    '/a.md': wire('one\n2\nthree'),
    '/b.md': wire('b'),
    '/c.md': wire('c\n'),
  });
  t.same((await api.call('ada', 'GET', `${path}/diff`)).body.files, [
    {
      path: '/a.md',
      status: 'modified',
      hunks: [
        {
          old_start: 1,
          old_lines: 3,
          new_start: 1,
          new_lines: 3,
          lines: [' one', '-two', '+2', ' three', '\\ No newline at end of file'],
        },
      ],
    },
    { path: '/b.md', status: 'unchanged', hunks: [] },
    {
      path: '/c.md',
      status: 'added',
      hunks: [{ old_start: 0, old_lines: 0, new_start: 1, new_lines: 1, lines: ['+c'] }],
    },
  ]);
});

t.test('a rejection discards, and is answered again when it is repeated', async (t) => {
  const api = await createApi(t);
  const { path, proposalId } = await completed(api, { '/a.md': wire('x') });
  for (let each = 0; each < 2; each++) {
    t.same((await api.call('ada', 'POST', `${path}/reject`, { body: { reason: 'no' } })).body, {
      proposal_id: proposalId,
      status: 'resolved',
      resolution: 'rejected',
    });
  }
  t.match(await api.call('ada', 'POST', `${path}/approve`), {
    status: 409,
    body: { code: 'already_resolved' },
  });
  t.match((await api.call('ada', 'GET', path)).body, {
    status: 'resolved',
    resolution: 'rejected',
    resolved_by_user_id: 'ada',
  });
});

t.test('a running proposal is cancelled, not decided', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const { body: started } = await api.call('ada', 'POST', `/api/workflows/${workflow.id}/refinements`, {
    body: { user_prompt: 'x' },
  });
  const path = `/api/proposals/${started.proposal_id}`;
  for (const decision of ['approve', 'reject']) {
    t.match(await api.call('ada', 'POST', `${path}/${decision}`), {
      status: 409,
      body: { code: 'proposal_not_completed' },
    });
  }
  t.same((await api.call('ada', 'GET', `${path}/diff`)).body, { files: [] });
  for (let each = 0; each < 2; each++) {
    t.match(await api.call('ada', 'POST', `${path}/cancel`), {
      status: 202,
      body: { proposal_id: started.proposal_id, status: 'processing' },
    });
  }
  t.ok(api.directory.noticed.includes(started.thread_id));
});

t.test('a read-only viewer sees the proposal and may do nothing with it; others do not see it', async (t) => {
  const api = await createApi(t);
  const { path, workflowId } = await completed(api, { '/a.md': wire('x') });
  const grant = `${path}/access/${encodeURIComponent('auth0|bob/1')}`;
  t.equal((await api.call('auth0|bob/1', 'GET', path)).status, 404);
  t.equal((await api.call('eve', 'PUT', grant)).status, 404);
  t.equal((await api.call('ada', 'PUT', grant)).status, 204);
  t.equal((await api.call('ada', 'PUT', grant)).status, 204);
  for (const rest of ['', '/diff', '/audit'])
    t.equal((await api.call('auth0|bob/1', 'GET', path + rest)).status, 200, rest);
  for (const rest of ['approve', 'reject', 'cancel', 'retry']) {
    t.match(
      await api.call('auth0|bob/1', 'POST', `${path}/${rest}`),
      { status: 403, body: { code: 'forbidden' } },
      rest,
    );
    t.equal((await api.call('eve', 'POST', `${path}/${rest}`)).status, 404, rest);
  }
  t.equal((await api.call('auth0|bob/1', 'PUT', `${path}/access/eve`)).status, 403);
  t.equal((await api.call('auth0|bob/1', 'GET', `/api/workflows/${workflowId}`)).status, 404);
  t.equal((await api.call('ada', 'DELETE', grant)).status, 204);
  t.equal((await api.call('auth0|bob/1', 'GET', path)).status, 404);
  t.equal((await api.call('ada', 'PUT', `${path}/access/${'x'.repeat(256)}`)).status, 404);
});

t.test('proposals are listed by status', async (t) => {
  const api = await createApi(t);
  const { workflowId, proposalId } = await completed(api, { '/a.md': wire('x') });
  const list = (query: string) => api.call('ada', 'GET', `/api/workflows/${workflowId}/proposals${query}`);
  t.match((await list('?status=completed')).body, {
    items: [{ id: proposalId, status: 'completed' }],
    next_cursor: null,
  });
  t.same((await list('?status=failed')).body.items, []);
  t.equal((await list('?status=open')).status, 422);
});

t.test('a key makes a decision repeatable, for this proposal and this body only', async (t) => {
  const api = await createApi(t);
  const one = await completed(api, { '/a.md': wire('x') });
  const two = await completed(api, { '/a.md': wire('x') });
  const headers = { 'idempotency-key': 'decide' };
  const first = await api.call('ada', 'POST', `${one.path}/approve`, { headers });
  t.same((await api.call('ada', 'POST', `${one.path}/approve`, { headers })).body, first.body);
  t.match(await api.call('ada', 'POST', `${two.path}/approve`, { headers }), {
    status: 422,
    body: { code: 'idempotency_mismatch' },
  });
  t.match(await api.call('ada', 'POST', `${one.path}/approve`, { headers, body: { files: ['/a.md'] } }), {
    status: 422,
  });
});

/** A pool whose transactions are all rolled back once and run again, as after a deadlock. */
const twice = (t: Test) => {
  const behind: { pool: DatabasePool | null } = { pool: null };
  const pool = () => behind.pool as DatabasePool;
  const transaction: DatabasePool['transaction'] = async (work) => {
    await t.rejects(
      pool().transaction(async (tx) => {
        await work(tx);
        throw new Error('rolled back');
      }),
    );
    return pool().transaction(work);
  };
  const db = new Proxy({} as DatabasePool, {
    get: (_, name: keyof DatabasePool) => (name === 'transaction' ? transaction : pool()[name]),
  });
  return { db, behind };
};

t.test('a transaction that is run again does nothing twice outside the database (rule 1)', async (t) => {
  const { db, behind } = twice(t);
  const api = await createApi(t, { db });
  behind.pool = api.pool;
  const headers = { 'idempotency-key': 'once' };
  const one = await completed(api, { '/a.md': wire('x') });
  const two = await completed(api, { '/a.md': wire('x') });
  api.directory.noticed.length = 0;
  t.equal((await api.call('ada', 'POST', `${one.path}/approve`, { headers })).status, 200);
  t.equal((await api.call('ada', 'POST', `${two.path}/reject`, { headers })).status, 200);
  t.equal(api.directory.noticed.length, 2);
  const metrics = await api.metrics.render();
  t.match(metrics, /proposals_resolved_total{resolution="approved"} 1\n/);
  t.match(metrics, /proposals_resolved_total{resolution="rejected"} 1\n/);
  t.equal((await api.call('ada', 'POST', `${two.path}/reject`, { headers })).status, 200);
  t.equal(api.directory.noticed.length, 2, 'an answer that is given again changes nothing');
});

t.test(
  'a refusal is an answer too and stays the answer of its key; a new workflow is made once',
  async (t) => {
    const api = await createApi(t);
    const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
    const headers = { 'idempotency-key': 'k' };
    const publish = () => api.call('ada', 'POST', `/api/workflows/${workflow.id}/versions`, { headers });
    const refused = await publish();
    t.match(refused, { status: 404, body: { code: 'draft_not_found' } });
    await api.call('ada', 'PUT', `/api/workflows/${workflow.id}/draft`, {
      body: { base_revision: 0, files: { '/a': 'a' } },
    });
    const repeated = await publish();
    t.same(repeated.body, refused.body);
    t.equal(repeated.headers.get('content-type'), 'application/problem+json');

    const make = () => api.call('ada', 'POST', '/api/workflows', { body: { name: 'Once' }, headers });
    const answers = await Promise.all([make(), make(), make()]);
    const made = answers.filter((each) => each.status === 201);
    t.equal(new Set(made.map((each) => each.body.id)).size, 1);
    const again = await make();
    t.same(again.body, made[0]?.body);
    t.equal(again.headers.get('location'), `/api/workflows/${again.body.id}`);
    const mallory = await api.call('eve', 'POST', '/api/workflows', { body: { name: 'Once' }, headers });
    t.not(mallory.body.id, again.body.id, 'keys are per user');
    for (const key of ['x'.repeat(256), 'ä', 'a b']) {
      const odd = await api.call('ada', 'POST', '/api/workflows', {
        body: { name: 'x' },
        headers: { 'idempotency-key': Buffer.from(key).toString('latin1') },
      });
      t.match(odd, { status: 422, body: { errors: [{ path: 'Idempotency-Key' }] } }, key);
    }
  },
);

t.test(
  'a key whose commit was made while its answer was lost is answered from what is stored, and the work is done once (rule 2)',
  async (t) => {
    const { url } = await createTestDatabase(t);
    const gate = await createDatabaseGate(url);
    const behind = await createPool({ url: gate.url, maximumPoolSize: 4, applicationName: 'behind' });
    t.teardown(async () => {
      await behind.end().catch(() => undefined);
      gate.shut();
    });
    const api = await createApi(t, { db: behind });
    const headers = { 'idempotency-key': 'k' };
    const make = () => api.call('ada', 'POST', '/api/workflows', { body: { name: 'Once' }, headers });
    gate.set('cut_at_commit');
    t.match(await make(), { status: 503, body: { code: 'database_unavailable' } });
    const repeated = await make();
    t.equal(repeated.status, 201);
    const { items } = (await api.call('ada', 'GET', '/api/workflows')).body;
    t.strictSame(
      items.map(({ id }: { id: string }) => id),
      [repeated.body.id],
    );
    t.same((await make()).body, repeated.body);
  },
);

t.test('a try whose key has gone to another try does nothing, and is 409', async (t) => {
  const { pool } = await createTestDatabase(t);
  let arrived = () => {};
  let goOn = () => {};
  const arrives = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const mayGoOn = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let first = true;
  const transaction: DatabasePool['transaction'] = async (work) => {
    if (first) {
      first = false;
      arrived();
      await mayGoOn;
    }
    return pool.transaction(work);
  };
  const db = new Proxy(pool, {
    get: (target, name: keyof DatabasePool) => (name === 'transaction' ? transaction : target[name]),
  });
  const api = await createApi(t, { db });
  const headers = { 'idempotency-key': 'k' };
  const make = () => api.call('ada', 'POST', '/api/workflows', { body: { name: 'Once' }, headers });
  const late = make();
  await arrives;
  await pool.query(sql.type(z.object({}))`
    UPDATE idempotency_keys SET created_at = now() - interval '61 seconds'`);
  const other = await make();
  t.equal(other.status, 201);
  goOn();
  t.match(await late, { status: 409, body: { code: 'idempotency_in_flight' } });
  const { items } = (await api.call('ada', 'GET', '/api/workflows')).body;
  t.strictSame(
    items.map(({ id }: { id: string }) => id),
    [other.body.id],
  );
  t.same((await make()).body, other.body, 'the key is not freed by the late one');
});

t.test('the audit that users see names no replica, and keeps all else', async (t) => {
  const api = await createApi(t);
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const { body: started } = await api.call('ada', 'POST', `/api/workflows/${workflow.id}/refinements`, {
    body: { user_prompt: 'x' },
  });
  await takeOver(api.pool, {
    threadId: started.thread_id,
    fromNode: 'node-1',
    fromGeneration: 1,
    fromBeat: 'any',
    toNode: 'host-2',
    transitionId: randomUUID(),
  });
  await giveUpOwned(api.pool, { node: 'host-2', except: [], limit: 1 });
  await api.pool.query(sql.type(z.object({}))`
    INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt, details)
    SELECT gen_random_uuid(), id, version + 1, phase, phase, 'other', attempt, '{"node": "host-2", "code": "kept"}'
    FROM proposals WHERE id = ${started.proposal_id}`);
  const { items } = (await api.call('ada', 'GET', `/api/proposals/${started.proposal_id}/audit`)).body;
  t.strictSame(
    items.slice(1).map(({ event, details }: { event: string; details: unknown }) => [event, details]),
    [
      ['taken_over', {}],
      ['given_up', {}],
      ['other', { code: 'kept' }],
    ],
  );
  t.notMatch(JSON.stringify(items), /node|host-2/);
});

t.test('ids of proposals that cannot be are 404', async (t) => {
  const api = await createApi(t);
  for (const id of [randomUUID(), 'x', '..', '%2e%2e']) {
    t.equal((await api.call('ada', 'GET', `/api/proposals/${id}`)).status, 404, id);
  }
});
