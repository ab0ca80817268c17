import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { readInput } from '../../src/db/proposals.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitRefusedStart } from '../../src/db/run-progress.js';
import { nameOf } from '../../src/db/statement.js';
import { type Api, createApi } from '../support/api.js';
import { fenceOf } from '../support/seed.js';

const makeWorkflow = async (
  api: Api,
  user = 'ada',
  files: Record<string, string> | undefined = { '/a.md': 'a\nb' },
) => {
  const made = await api.call(user, 'POST', '/api/workflows', {
    body: { name: 'Agent', ...(files && { files }) },
  });
  return made.body.id as string;
};
const countOf = async (api: Api, workflowId: string) =>
  (await api.call('ada', 'GET', `/api/workflows/${workflowId}/proposals`)).body.items.length;

t.test(
  'a refinement is written with its whole input, started, and answered with where to watch it',
  async (t) => {
    const api = await createApi(t);
    const workflowId = await makeWorkflow(api);
    const answer = await api.call('ada', 'POST', `/api/workflows/${workflowId}/refinements`, {
      body: { user_prompt: 'Add search', context_file_path: '/a.md', context_selection: 'b' },
    });
    t.equal(answer.status, 202);
    const { proposal_id, thread_id } = answer.body;
    t.match(answer.body, {
      status: 'processing',
      websocket_url: `/api/ws/refinements/${thread_id}`,
      created_at: /Z$/,
    });
    t.match(api.directory.started, [
      { proposalId: proposal_id, threadId: thread_id, ownerNode: 'node-1', phase: 'invoking' },
    ]);
    t.match(await readInput(api.pool, { proposalId: proposal_id }), {
      agent_definition: {},
      input_payload: {
        files: { '/a.md': { content: ['a', 'b'] } },
        messages: [{ role: 'user', content: /^Add search/ }],
      },
    });
    const shown = await api.call('ada', 'GET', `/api/proposals/${proposal_id}`);
    t.match(shown.body, {
      id: proposal_id,
      workflow_id: workflowId,
      thread_id,
      status: 'processing',
      phase: 'invoking',
      resolution: null,
      user_prompt: 'Add search',
      context_file_path: '/a.md',
      context_selection: 'b',
      base_revision: 1,
      generated_files: null,
      warnings: [],
      error: null,
      attempt: 1,
      completed_at: null,
    });
    t.match((await api.call('ada', 'GET', `/api/proposals/${proposal_id}/audit`)).body.items, [
      { from: null, to: 'invoking', event: 'start', actor_user_id: 'ada', attempt: 1 },
    ]);
  },
);

t.test(
  'while the circuit is open a refinement is 503 with the time to wait, and nothing is written (rule 8)',
  async (t) => {
    const api = await createApi(t);
    const workflowId = await makeWorkflow(api);
    api.directory.retryAfterSeconds = 17;
    const answer = await api.call('ada', 'POST', `/api/workflows/${workflowId}/refinements`, {
      body: { user_prompt: 'x' },
    });
    t.equal(answer.status, 503);
    t.equal(answer.body.code, 'runtime_unavailable');
    t.equal(answer.headers.get('retry-after'), '17');
    t.equal(await countOf(api, workflowId), 0);
    t.same(api.directory.started, []);
  },
);

t.test(
  'a refused first invoke is 503; an unknown one, and one that nobody could watch, are 202',
  async (t) => {
    const api = await createApi(t);
    const path = `/api/workflows/${await makeWorkflow(api)}/refinements`;
    const body = { user_prompt: 'x' };
    api.directory.start = 'refused';
    const refused = await api.call('ada', 'POST', path, { body });
    t.equal(refused.status, 503);
    t.ok(Number(refused.headers.get('retry-after')) > 0);
    api.directory.start = 'unknown';
    t.equal((await api.call('ada', 'POST', path, { body })).status, 202);
    api.directory.start = () => Promise.reject(new Error('no'));
    t.equal((await api.call('ada', 'POST', path, { body })).status, 202);
  },
);

/** The commit of a refusal, as the actor of a start makes it. */
const refuse = (api: Api, row: ThreadRow) =>
  commitRefusedStart(api.pool, {
    ...fenceOf(row),
    error: { code: 'runtime_unavailable', message: 'No.', retryable: true },
  });
const out = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });

t.test(
  'a refusal that is being committed when the wait is over is told as it is committed, and never otherwise (rule 8)',
  async (t) => {
    let fails = false;
    const api = await createApi(t, {
      wrap: (pool) => ({
        ...pool,
        maybeOne: (query) =>
          fails && nameOf(query.sql) === 'keep_start' ? Promise.reject(out) : pool.maybeOne(query),
      }),
    });
    const workflowId = await makeWorkflow(api);
    const start = (headers: Record<string, string> = {}) =>
      api.call('ada', 'POST', `/api/workflows/${workflowId}/refinements`, {
        body: { user_prompt: 'x' },
        headers,
      });
    const keyed = () => ({ 'idempotency-key': randomUUID() });
    api.directory.start = 'refusing';
    for (const headers of [{}, keyed()]) {
      t.equal((await start(headers)).status, 202);
      const row = api.directory.started.at(-1) as ThreadRow;
      t.equal(await refuse(api, row), null, 'what was promised is not refused any more');
    }
    api.directory.start = async (row) => {
      await refuse(api, row);
      return 'refusing';
    };
    const key = keyed();
    for (const headers of [{}, key]) {
      t.match(await start(headers), { status: 503, body: { code: 'runtime_unavailable' } });
    }
    fails = true;
    api.directory.start = 'refusing';
    for (const headers of [{}, key]) {
      const answer = await start(headers);
      t.match(answer, { status: 503, body: { code: 'database_unavailable', detail: /not known whether/ } });
      const row = api.directory.started.at(-1) as ThreadRow;
      t.match(await refuse(api, row), { version: 2 }, 'it may be committed yet');
    }
    fails = false;
    api.directory.start = 'started';
    t.equal((await start(key)).status, 202, 'and a repeat starts anew');
    t.equal(await countOf(api, workflowId), 7);
    t.match(await api.metrics.render(), /refinements_started_total 3/);
  },
);

t.test('a repeat of what nobody answered in time is told as the row is, for good (rule 8)', async (t) => {
  let before: () => Promise<unknown> = async () => undefined;
  const api = await createApi(t, {
    wrap: (pool) => ({
      ...pool,
      async maybeOne(query) {
        if (nameOf(query.sql) === 'keep_start') await before();
        return pool.maybeOne(query);
      },
    }),
  });
  const path = `/api/workflows/${await makeWorkflow(api)}/refinements`;
  /** A start that was written, and whose request got no answer. */
  const unanswered = async () => {
    const options = { body: { user_prompt: 'x' }, headers: { 'idempotency-key': randomUUID() } };
    let end: (outcome: 'unknown') => void = () => undefined;
    api.directory.start = () =>
      new Promise((resolve) => {
        end = resolve;
      });
    const count = api.directory.started.length;
    const first = api.call('ada', 'POST', path, options);
    while (api.directory.started.length === count) await wait(5);
    const row = api.directory.started.at(-1) as ThreadRow;
    await api.pool.query(sql.type(z.object({}))`
      UPDATE idempotency_keys SET created_at = now() - interval '11 seconds' WHERE proposal_id = ${row.proposalId}`);
    api.directory.start = 'started';
    const again = () => api.call('ada', 'POST', path, options);
    const leave = async () => {
      end('unknown');
      await first;
    };
    return { row, again, leave };
  };
  const kept = await unanswered();
  t.match(await kept.again(), { status: 202, body: { proposal_id: kept.row.proposalId } });
  t.equal(await refuse(api, kept.row), null, 'a refusal comes too late');
  t.match(await kept.again(), { status: 202, body: { proposal_id: kept.row.proposalId } });
  await kept.leave();
  const refused = await unanswered();
  before = () => refuse(api, refused.row);
  const anew = await refused.again();
  t.equal(anew.status, 202);
  t.not(anew.body.proposal_id, refused.row.proposalId, 'a refusal came first, and freed the key');
  await refused.leave();
});

t.test('a refinement that breaks the contract is 422 with every fault named', async (t) => {
  const api = await createApi(t);
  const path = `/api/workflows/${await makeWorkflow(api)}/refinements`;
  for (const [body, field] of [
    [{}, 'user_prompt'],
    [{ user_prompt: '' }, 'user_prompt'],
    [{ user_prompt: '  ' }, 'user_prompt'],
    [{ user_prompt: 'x'.repeat(20_001) }, 'user_prompt'],
    [{ user_prompt: 'x\u0000' }, 'user_prompt'],
    [{ user_prompt: 'x\ud800' }, 'user_prompt'],
    [{ user_prompt: 'x', context_file_path: '../etc/passwd' }, 'context_file_path'],
    [{ user_prompt: 'x', context_selection: 'ä'.repeat(32_769) }, 'context_selection'],
    [{ user_prompt: 'x', unknown: 1 }, 'unknown'],
    [[], ''],
    ['null', ''],
  ] as const) {
    const answer = await api.call('ada', 'POST', path, { body });
    t.equal(answer.status, 422, field);
    t.ok(
      answer.body.errors.some((error: { path: string }) => error.path === field),
      JSON.stringify(answer.body.errors),
    );
  }
});

t.test('a repeat with the same key gets the same refinement, another body is a mismatch', async (t) => {
  const api = await createApi(t);
  const workflowId = await makeWorkflow(api);
  const path = `/api/workflows/${workflowId}/refinements`;
  const headers = { 'idempotency-key': randomUUID() };
  const first = await api.call('ada', 'POST', path, { body: { user_prompt: 'x' }, headers });
  const second = await api.call('ada', 'POST', path, { body: '{ "user_prompt" : "x" }', headers });
  t.equal(second.status, 202);
  t.same(second.body, first.body);
  const other = await api.call('ada', 'POST', path, { body: { user_prompt: 'y' }, headers });
  t.match(other, { status: 422, body: { code: 'idempotency_mismatch' } });
  t.equal(await countOf(api, workflowId), 1);
  t.equal(api.directory.started.length, 1);
});

t.test('a repeat is answered while the runtime is away, over the limit, and after the run', async (t) => {
  const api = await createApi(t, { http: { refinementsPerMinute: 1 } });
  const path = `/api/workflows/${await makeWorkflow(api)}/refinements`;
  const options = { body: { user_prompt: 'x' }, headers: { 'idempotency-key': randomUUID() } };
  const first = await api.call('ada', 'POST', path, options);
  api.directory.retryAfterSeconds = 30;
  t.match(await api.call('ada', 'POST', path, options), { status: 202, body: first.body });
  api.directory.retryAfterSeconds = null;
  await api.complete(first.body.proposal_id, {});
  t.same((await api.call('ada', 'POST', path, options)).body, first.body);
  const other = await api.call('ada', 'POST', path, { ...options, body: { user_prompt: 'y' } });
  t.match(other, { status: 422, body: { code: 'idempotency_mismatch' } });
  t.equal((await api.call('ada', 'POST', path, { body: { user_prompt: 'x' } })).status, 429);
  await api.call('ada', 'DELETE', path.replace('/refinements', ''));
  t.equal((await api.call('ada', 'POST', path, options)).status, 404);
});

t.test(
  'while the first request waits for the runtime a repeat is 409, and its refusal frees the key',
  async (t) => {
    const api = await createApi(t);
    const workflowId = await makeWorkflow(api);
    const path = `/api/workflows/${workflowId}/refinements`;
    const headers = { 'idempotency-key': randomUUID() };
    const body = { user_prompt: 'x' };
    let answerIt: (outcome: 'started') => void = () => undefined;
    api.directory.start = () =>
      new Promise((resolve) => {
        answerIt = resolve;
      });
    const first = api.call('ada', 'POST', path, { body, headers });
    while (api.directory.started.length === 0) await wait(5);
    const repeats = await Promise.all([1, 2, 3].map(() => api.call('ada', 'POST', path, { body, headers })));
    for (const repeat of repeats) t.match(repeat, { status: 409, body: { code: 'idempotency_in_flight' } });
    answerIt('started');
    t.equal((await first).status, 202);
    t.equal(await countOf(api, workflowId), 1);
  },
);

t.test('of many requests at once with one key one makes a refinement', async (t) => {
  const api = await createApi(t);
  const workflowId = await makeWorkflow(api);
  const headers = { 'idempotency-key': 'one' };
  const answers = await Promise.all(
    Array.from({ length: 8 }, () =>
      api.call('ada', 'POST', `/api/workflows/${workflowId}/refinements`, {
        body: { user_prompt: 'x' },
        headers,
      }),
    ),
  );
  const ids = new Set(answers.filter((each) => each.status === 202).map((each) => each.body.proposal_id));
  t.equal(ids.size, 1);
  t.ok(answers.every((each) => each.status === 202 || each.status === 409));
  t.equal(await countOf(api, workflowId), 1);
});

t.test('only a failed proposal is retried, as a new one with the same prompt', async (t) => {
  const api = await createApi(t);
  const workflowId = await makeWorkflow(api);
  const { body: started } = await api.call('ada', 'POST', `/api/workflows/${workflowId}/refinements`, {
    body: { user_prompt: 'again' },
  });
  const retry = `/api/proposals/${started.proposal_id}/retry`;
  t.match(await api.call('ada', 'POST', retry), { status: 409, body: { code: 'proposal_not_failed' } });
  await api.fail(started.proposal_id);
  t.equal((await api.call('eve', 'POST', retry)).status, 404);
  await api.call('ada', 'PUT', `/api/proposals/${started.proposal_id}/access/bob`);
  t.match(await api.call('bob', 'POST', retry), { status: 403, body: { code: 'forbidden' } });
  const again = await api.call('ada', 'POST', retry);
  t.equal(again.status, 202);
  t.not(again.body.proposal_id, started.proposal_id);
  t.match((await api.call('ada', 'GET', `/api/proposals/${again.body.proposal_id}`)).body, {
    user_prompt: 'again',
  });
});

t.test('refinements are limited per user, and the refusal says how long to wait', async (t) => {
  const api = await createApi(t, { http: { refinementsPerMinute: 2 } });
  const path = `/api/workflows/${await makeWorkflow(api)}/refinements`;
  const statuses = [];
  for (let each = 0; each < 3; each++) {
    const answer = await api.call('ada', 'POST', path, { body: { user_prompt: 'x' } });
    statuses.push(answer.status);
    if (answer.status === 429) t.ok(Number(answer.headers.get('retry-after')) >= 1);
  }
  t.same(statuses, [202, 202, 429]);
  t.match(await api.metrics.render(), /rate_limited_total\{scope="refinements"\} 1/);
});
