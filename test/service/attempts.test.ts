import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { startRefinement, untilStatus } from '../support/replica.js';
import type { ScriptedRequest } from '../support/scripted-runtime.js';
import { eventually } from '../support/until.js';
import { createHouse } from './support/house.js';

const nothing = z.object({});
const jobsOf = (requests: readonly ScriptedRequest[]) => requests.map(({ threadId }) => threadId);

t.test(
  'an invoke without an answer is 202, and is repeated with the same job until there is one (rule 7)',
  async (t) => {
    for (const [manner, config] of [
      ['cut', {}],
      ['hang', { runtime: { invokeDeadlineMs: 300 } }],
    ] as const) {
      let times = 0;
      const house = await createHouse(t, { invoke: () => (++times <= 2 ? manner : undefined) }, config);
      const { proposalId, threadId } = await startRefinement(house.replica, 'ann');
      const thread = await house.attempt(1);
      const jobs = jobsOf(house.runtime.requestsOf('invoke'));
      // On a busy machine the answer, too, may be later than the deadline.
      t.strictSame(jobs.slice(0, 3), [threadId, threadId, threadId], manner);
      t.ok(manner === 'hang' || jobs.length === 3);
      const [first, ...others] = house.runtime.requestsOf('invoke').map(({ body }) => body);
      for (const body of others) t.strictSame(body, first, 'the same input');
      thread.pushFiles({ '/a.md': 'two' });
      thread.end();
      t.match(await untilStatus(house.replica, proposalId, 'completed'), { attempt: 1 });
    }
  },
);

t.test('once an invoke had no answer, a refusal is no refusal of the run', async (t) => {
  const answers = [
    'cut',
    { status: 500, body: {} },
    { status: 410, body: { code: 'x', message: 'y' } },
  ] as const;
  for (const second of answers.slice(1)) {
    let times = 0;
    const house = await createHouse(t, {
      invoke: () => [answers[0], second][times++],
    });
    const { proposalId } = await startRefinement(house.replica, 'ann');
    if (second !== answers[1]) {
      // 410: the job was cleaned up, so another attempt follows.
      await house.runtime.untilRequest('invoke', 3);
      t.match(await house.proposal(proposalId), { status: 'processing' });
      continue;
    }
    const thread = await house.attempt(1);
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
    t.match(await untilStatus(house.replica, proposalId, 'completed'), { attempt: 1 });
  }
});

t.test('any answer but 200 to the first invoke refuses the start', async (t) => {
  for (const status of [400, 410, 429, 503]) {
    const house = await createHouse(t, { invoke: () => ({ status, body: { code: 'x', message: 'y' } }) });
    const workflow = await house.replica.call('ann', 'POST', '/api/workflows', { name: 'w' });
    const path = `/api/workflows/${workflow.body.id}`;
    const refused = await house.replica.call('ann', 'POST', `${path}/refinements`, { user_prompt: 'x' });
    t.match(refused, { status: 503, body: { code: 'runtime_unavailable' } }, String(status));
    const { body } = await house.replica.call('ann', 'GET', `${path}/proposals`);
    t.match(body.items, [{ status: 'failed', error: { code: 'runtime_unavailable' } }]);
    const late = await house.replica.watch('ann', body.items[0].thread_id);
    t.equal((await late.closed).code, 1000);
    t.strictSame(late.kinds(), ['on_subscribed', 'error', 'end']);
  }
});

t.test('a later invoke that is refused is away, and one that is rejected ends the run', async (t) => {
  let answer: { status: number } | undefined;
  const house = await createHouse(t, { invoke: () => answer });
  const { proposalId, thread, watcher } = await house.running();
  answer = { status: 503 };
  thread.fail('model_error', 'Again, please.', true);
  await watcher.until('on_retry');
  await house.runtime.untilRequest('invoke', 4);
  t.match(await house.proposal(proposalId), { status: 'processing', attempt: 2 }, 'away uses no attempt');
  t.ok(watcher.kinds().includes('on_reconnecting'));
  answer = { status: 422 };
  t.match(await watcher.until('error'), { data: { code: 'runtime_rejected', retryable: false } });
  t.match(await house.proposal(proposalId), { status: 'failed', attempt: 2 });
});

t.test(
  'four attempts are all there are, each invoked only when the one before is over (rule 7)',
  async (t) => {
    const house = await createHouse(t, {
      cleanup: () => ({ status: 404, body: { code: 'other', message: 'x' } }),
    });
    let mayEnd = true;
    house.runtime.script.state = (request) =>
      mayEnd
        ? undefined
        : {
            status: 200,
            body: { thread_id: request.threadId, status: 'running', result: null, generated_files: null },
          };
    house.runtime.script.run = (thread) => {
      thread.push('on_llm_stream', { content: 'a' });
      thread.fail('model_error\u0000', 'No.', true);
    };
    const started = await startRefinement(house.replica, 'ann');
    const watcher = await house.replica.watch('ann', started.threadId);
    await watcher.closed;
    t.match(await house.proposal(started.proposalId), {
      status: 'failed',
      attempt: 4,
      error: { code: 'model_error\uFFFD' },
    });
    const jobs = jobsOf(house.runtime.requestsOf('invoke'));
    t.equal(jobs.length, 4);
    t.equal(new Set(jobs).size, 4);
    const attempts = watcher.frames
      .filter((frame) => frame.event_type === 'on_retry')
      .map((frame) => frame.data.attempt);
    t.strictSame(attempts, [2, 3, 4].slice(-attempts.length));
    t.equal(watcher.kinds().filter((kind) => kind === 'error').length, 1, 'only the last error is shown');
    t.equal(watcher.kinds().filter((kind) => kind === 'end').length, 1);

    mayEnd = false;
    delete house.runtime.script.run;
    const { thread, proposalId, watcher: second } = await house.running();
    thread.fail('model_error', 'No.', true);
    await second.until('on_retry');
    const asked = house.runtime.requestsOf('state').length;
    await house.runtime.untilRequest('state', asked + 3);
    t.equal(house.runtime.requestsOf('invoke').length, 5, 'neither confirmed nor ended: it is not invoked');
    delete house.runtime.script.cleanup;
    await house.pool.query(sql.type(nothing)`UPDATE outbox SET due_at = now()`);
    const next = await house.attempt(6);
    t.ok(house.runtime.requestsOf('cleanup').some(({ threadId }) => threadId === thread.id));
    next.pushFiles({ '/a.md': 'two' });
    next.end();
    t.match(await untilStatus(house.replica, proposalId, 'completed'), { attempt: 2 });
  },
);

t.test('a run that the runtime has lost is tried again, and one that was cleaned up too', async (t) => {
  const house = await createHouse(t);
  const { proposalId, threadId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  (house.runtime.threads as Map<string, unknown>).delete(threadId);
  thread.cut();
  t.match(await watcher.until('on_retry'), { data: { attempt: 2 } });
  const next = await house.attempt(2);
  next.pushFiles({ '/a.md': 'two' });
  next.end();
  t.match(await untilStatus(house.replica, proposalId, 'completed'), { attempt: 2 });
});

t.test(
  'a run that stops sending is stalled, and is tried again; one that has not begun is not',
  async (t) => {
    const house = await createHouse(t, {}, { runs: { idleMs: 1_200 } });
    const { proposalId, thread, watcher } = await house.running();
    thread.push('on_llm_stream', { content: 'a' });
    t.match(await watcher.until('on_retry'), { data: { attempt: 2 } });
    const next = await house.attempt(2);
    await eventually('a reader', () => next.readers > 0);
    // Longer than the limit and the look at it together: the second attempt waits for its turn.
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    t.match(await house.proposal(proposalId), { attempt: 2, status: 'processing' });
    next.pushFiles({ '/a.md': 'two' });
    next.end();
    t.match(await untilStatus(house.replica, proposalId, 'completed'), { attempt: 2 });
  },
);

t.test('a cancel ends the run at once where none is open', async (t) => {
  const invoking = await createHouse(t, { invoke: () => 'hang' }, { runs: { startWaitMs: 50 } });
  const first = await startRefinement(invoking.replica, 'ann');
  t.equal(
    (await invoking.replica.call('ann', 'POST', `/api/proposals/${first.proposalId}/cancel`)).status,
    202,
  );
  t.match(await untilStatus(invoking.replica, first.proposalId, 'failed'), { error: { code: 'cancelled' } });

  const retrying = await createHouse(t, {}, { runs: { retryBaseMs: 1e9, retryMaxMs: 1e9 } });
  const { proposalId, thread, watcher } = await retrying.running();
  thread.fail('model_error', 'No.', true);
  await watcher.until('on_retry');
  t.equal((await retrying.replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status, 202);
  await watcher.closed;
  t.match(watcher.frames.at(-2), { event_type: 'error', data: { code: 'cancelled' } });
  t.match(await retrying.proposal(proposalId), {
    status: 'failed',
    attempt: 2,
    error: { code: 'cancelled' },
  });
  t.equal(retrying.runtime.requestsOf('invoke').length, 1);
});

t.test(
  'a cancel while the runtime is away is taken after its time, and told to the runtime when it is back',
  async (t) => {
    const house = await createHouse(t);
    const { proposalId, thread, watcher } = await house.running();
    thread.push('on_llm_stream', { content: 'a' });
    await watcher.until('on_llm_stream');
    await house.runtime.goAway();
    await watcher.until('on_reconnecting');
    t.equal((await house.replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status, 202);
    await watcher.closed;
    t.match(await house.proposal(proposalId), { status: 'failed', error: { code: 'cancelled' } });
    t.match(watcher.frames.at(-1), { event_type: 'end', data: { status: 'failed' } });
  },
);

t.test('a cancel that was committed before the completion wins', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  let answer = () => {};
  const after = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const asked = new Promise<void>((resolve) => {
    house.runtime.script.state = () => {
      resolve();
      return {
        status: 200,
        after,
        body: {
          thread_id: thread.id,
          status: 'completed',
          result: null,
          generated_files: { '/a.md': { content: ['two'] } },
        },
      };
    };
  });
  thread.push('on_llm_stream', { content: 'a' });
  thread.end();
  await asked;
  t.equal((await house.replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status, 202);
  answer();
  await watcher.closed;
  t.match(await house.proposal(proposalId), { status: 'failed', error: { code: 'cancelled' } });
  t.match(watcher.frames.slice(-2), [
    { seq: 2, event_type: 'error', data: { code: 'cancelled' } },
    { seq: 3, event_type: 'end', data: { status: 'failed' } },
  ]);
});

t.test('a cancel that is committed while the end of a run is looked for wins (rule 4)', async (t) => {
  for (const manner of ['without files', 'away'] as const) {
    const house = await createHouse(t);
    const { proposalId, thread, watcher } = await house.running();
    const body = { thread_id: thread.id, status: 'completed', result: null, generated_files: {} };
    let answer = () => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const asked = new Promise<void>((resolve) => {
      house.runtime.script.state = () => {
        resolve();
        return manner === 'away' ? 'cut' : { status: 200, after, body };
      };
    });
    thread.push('on_llm_stream', { content: 'a' });
    thread.end();
    await asked;
    t.equal(
      (await house.replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status,
      202,
      manner,
    );
    answer();
    t.match(await watcher.until('error'), { data: { code: 'cancelled' } }, manner);
    t.match(await watcher.until('end'), { data: { status: 'failed' } });
    t.match(await house.proposal(proposalId), { status: 'failed', error: { code: 'cancelled' } });
  }
});

t.test('the total deadline ends what invokes, what streams and what is being tried again', async (t) => {
  // Enough for each to be where its time is to end.
  const totalMs = 6_000;
  const invoking = await createHouse(t, { invoke: () => 'hang' }, { runs: { totalMs, startWaitMs: 50 } });
  const streaming = await createHouse(t, {}, { runs: { totalMs } });
  const slow = { retryBaseMs: 1e9, retryMaxMs: 1e9 };
  const retrying = await createHouse(t, {}, { runs: { totalMs, ...slow } });
  const away = await createHouse(t, {}, { runs: { totalMs } });
  const fourth = await away.running();
  await away.runtime.goAway();
  await fourth.watcher.until('on_reconnecting');
  const third = await retrying.running();
  third.thread.fail('model_error', 'No.', true);
  await third.watcher.until('on_retry');
  const second = await streaming.running();
  second.thread.pushFiles({ '/a.md': 'half' });
  await second.watcher.until('on_state_update');
  const first = await startRefinement(invoking.replica, 'ann');
  t.match(await untilStatus(invoking.replica, first.proposalId, 'failed'), {
    error: { code: 'runtime_unavailable' },
  });
  t.match(await untilStatus(streaming.replica, second.proposalId, 'failed'), {
    error: { code: 'deadline_exceeded' },
  });
  t.match(await untilStatus(retrying.replica, third.proposalId, 'failed'), {
    error: { code: 'runtime_unavailable' },
  });
  t.match(await untilStatus(away.replica, fourth.proposalId, 'failed'), {
    error: { code: 'runtime_unavailable' },
  });
  await second.watcher.closed;
  t.strictSame(second.watcher.numbers(), [1, 1, 2, 3]);
});
