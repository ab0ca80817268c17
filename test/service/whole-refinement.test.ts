import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import t, { type Test } from 'tap';
import { createTracing } from '../../src/telemetry/tracing.js';
import { createTestDatabase } from '../support/database.js';
import { createReplica, startRefinement, untilStatus } from '../support/replica.js';
import { createScriptedRuntime, type RuntimeScript } from '../support/scripted-runtime.js';
import { until } from '../support/until.js';

async function house(t: Test, script: RuntimeScript = {}) {
  const { url: databaseUrl, pool } = await createTestDatabase(t);
  const runtime = await createScriptedRuntime(script);
  t.teardown(() => runtime.stop());
  const replica = await createReplica(t, { databaseUrl, runtimeUrl: runtime.url });
  return { replica, runtime, pool, databaseUrl };
}

t.test('a prompt becomes a streamed run, a completed proposal and an approved draft', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId, workflowId } = await startRefinement(replica, 'ann');
  const thread = runtime.threads.get(threadId);
  t.ok(thread, 'the first job is the thread');
  const watcher = await replica.watch('ann', threadId);
  for (const word of ['I', ' change', ' it']) thread?.push('on_llm_stream', { content: word });
  thread?.pushFiles({ '/a.md': 'two', '/b.md': 'new' });
  thread?.end();
  const end = await watcher.until('end');
  const onEnd = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(onEnd.body, { status: 'completed', phase: null, attempt: 1, warnings: [], error: null });
  t.strictSame(Object.keys(onEnd.body.generated_files), ['/a.md', '/b.md']);
  t.equal(watcher.kinds()[0], 'on_subscribed');
  t.strictSame(watcher.numbers(), [1, 2, 3, 4, 5]);
  t.match(end.data, { proposal_id: proposalId, status: 'completed', warnings: [] });
  t.equal((await watcher.closed).code, 1000);

  const approved = await replica.call('ann', 'POST', `/api/proposals/${proposalId}/approve`);
  t.match(approved, { status: 200, body: { resolution: 'approved', files_applied: 2 } });
  const draft = await replica.call('ann', 'GET', `/api/workflows/${workflowId}/draft`);
  t.match(draft.body.files, { '/a.md': { content: 'two' }, '/b.md': { content: 'new' } });
  await runtime.untilRequest('cleanup');
  const audit = await replica.call('ann', 'GET', `/api/proposals/${proposalId}/audit`);
  t.strictSame(
    audit.body.items.map((item: { from: string; to: string }) => [item.from, item.to]),
    [
      [null, 'invoking'],
      ['invoking', 'streaming'],
      ['streaming', 'completed'],
      ['completed', 'resolved'],
    ],
  );
});

t.test('nobody has to watch for a proposal to complete', async (t) => {
  const { replica, runtime } = await house(t, {
    run(thread) {
      thread.pushFiles({ '/a.md': 'two' });
      thread.end();
    },
  });
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  await untilStatus(replica, proposalId, 'completed');
  t.equal(runtime.requestsOf('invoke').length, 1);
  const late = await replica.watch('ann', threadId);
  await late.closed;
  t.equal(late.kinds().at(-1), 'end', 'a late viewer gets the end');
  t.strictSame(late.numbers(), [1, 2]);
});

t.test('a viewer that leaves and comes back gets exactly what it missed', async (t) => {
  const { replica, runtime } = await house(t);
  const { threadId } = await startRefinement(replica, 'ann');
  const thread = runtime.threads.get(threadId);
  const first = await replica.watch('ann', threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  thread?.push('on_llm_stream', { content: 'b' });
  await first.until('on_llm_stream', 2);
  first.socket.terminate();
  thread?.push('on_llm_stream', { content: 'c' });
  const second = await replica.watch('ann', threadId, { after: 2, epoch: '1.1' });
  t.match(await second.until('on_subscribed'), { data: { recovery: 'exact', first_seq: 3, epoch: '1.1' } });
  thread?.push('on_llm_stream', { content: 'd' });
  await second.until('on_llm_stream', 2);
  t.strictSame(second.numbers(), [3, 4]);
});

t.test('a failed attempt is followed by another, in an epoch of its own, and is cleaned up', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  const thread = runtime.threads.get(threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  thread?.fail('model_error', 'The model said no.', true);
  const retry = await watcher.until('on_retry');
  t.match(retry.data, { attempt: 2, max: 4, epoch: '2.1' });
  await runtime.untilRequest('invoke', 2);
  t.equal((await runtime.untilRequest('cleanup')).threadId, threadId);
  const next = [...runtime.threads.values()].at(-1);
  t.not(next?.id, threadId);
  next?.pushFiles({ '/a.md': 'two' });
  next?.end();
  const end = await watcher.until('end');
  t.match(end.data, { status: 'completed' });
  t.notOk(watcher.kinds().includes('error'), 'a retried error is not shown');
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, { status: 'completed', attempt: 2, thread_id: threadId });
});

t.test('a failure that is not worth another attempt is told with its reason', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  runtime.threads.get(threadId)?.fail('model_authentication', 'The key is wrong.', false);
  const end = await watcher.until('end');
  t.match(end, { seq: 2, data: { status: 'failed' } });
  t.match(await watcher.until('error'), { seq: 1, data: { code: 'model_authentication' } });
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, {
    status: 'failed',
    error: { code: 'model_authentication', message: 'The key is wrong.' },
  });
  const metrics = await replica.metrics.render();
  t.match(metrics, /proposal_failures_total\{code="other"\} 1/, 'no label holds what a runtime makes up');
  await runtime.untilRequest('cleanup');
});

t.test('a run that ends without files has failed', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  runtime.threads.get(threadId)?.push('on_llm_stream', { content: 'nothing to do' });
  runtime.threads.get(threadId)?.end();
  t.match(await watcher.until('error'), { seq: 2, data: { code: 'completed_without_files' } });
  t.match(await watcher.until('end'), { seq: 3, data: { status: 'failed' } });
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, { status: 'failed', error: { code: 'completed_without_files', retryable: false } });
});

t.test('a cancel is committed before its answer, and the run ends as cancelled (rules 4, 15)', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  runtime.threads.get(threadId)?.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  t.equal((await replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status, 202);
  t.match(await watcher.until('end'), { data: { status: 'failed' } });
  t.match(await watcher.until('error'), { data: { code: 'cancelled' } });
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, { status: 'failed', error: { code: 'cancelled' } });
  t.equal((await replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`)).status, 202, 'again');
});

t.test('a run that does not hear a cancel is taken as cancelled, in an epoch of ours', async (t) => {
  const { replica, runtime } = await house(t, { cancel: () => ({ status: 202, body: {} }) });
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  runtime.threads.get(threadId)?.pushFiles({ '/a.md': 'half' });
  await watcher.until('on_state_update');
  await replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`);
  await watcher.closed;
  t.strictSame(watcher.kinds(), [
    'on_subscribed',
    'on_state_update',
    'on_reset',
    'on_state_update',
    'error',
    'end',
  ]);
  t.match(watcher.frames[2], { data: { epoch: '1.closed' } });
  t.strictSame(watcher.numbers(), [1, 1, 2, 3]);
});

t.test('a lost socket is opened again at the last position, without a hole or a repeat', async (t) => {
  const { replica, runtime } = await house(t);
  const { threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  const thread = runtime.threads.get(threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  thread?.cut();
  thread?.push('on_llm_stream', { content: 'b' });
  await watcher.until('on_llm_stream', 2);
  thread?.pushFiles({ '/a.md': 'two' });
  thread?.end();
  await watcher.closed;
  t.strictSame(watcher.numbers(), [1, 2, 3, 4]);
  t.ok(watcher.kinds().includes('on_reconnecting'));
  t.match(runtime.requestsOf('stream').at(-1)?.url, /after=1/);
});

t.test('a runtime that was killed and goes on in a new epoch is told by on_reset', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  const thread = runtime.threads.get(threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  thread?.restart();
  thread?.pushFiles({ '/a.md': 'one' });
  thread?.push('on_llm_stream', { content: 'again' });
  thread?.pushFiles({ '/a.md': 'two' });
  thread?.end();
  t.match(await watcher.until('on_reset'), { data: { epoch: '1.2' } });
  await watcher.closed;
  t.strictSame(watcher.numbers(), [1, 1, 2, 3, 4]);
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, { status: 'completed', attempt: 1 });
});

t.test(
  'a refused start is 503, leaves a failed row, and a repeat with the same key starts anew',
  async (t) => {
    const { replica, runtime } = await house(t, {
      invoke: () => ({ status: 500, body: { code: 'x', message: 'y' } }),
    });
    const workflow = await replica.call('ann', 'POST', '/api/workflows', { name: 'w' });
    const path = `/api/workflows/${workflow.body.id}/refinements`;
    const key = { 'idempotency-key': 'k1' };
    const refused = await replica.call('ann', 'POST', path, { user_prompt: 'x' }, key);
    t.match(refused, { status: 503, body: { code: 'runtime_unavailable' } });
    t.ok(Number(refused.headers.get('retry-after')) > 0);
    const listed = await replica.call('ann', 'GET', `/api/workflows/${workflow.body.id}/proposals`);
    t.match(listed.body.items, [{ status: 'failed', error: { code: 'runtime_unavailable' } }]);
    delete runtime.script.invoke;
    const again = await replica.call('ann', 'POST', path, { user_prompt: 'x' }, key);
    t.equal(again.status, 202);
    const repeat = await replica.call('ann', 'POST', path, { user_prompt: 'x' }, key);
    t.match(repeat, { status: 202, body: { proposal_id: again.body.proposal_id } });
  },
);

t.test('an orchestrator that stops and starts goes on with the same run', async (t) => {
  const { replica, runtime, databaseUrl } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  const thread = runtime.threads.get(threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  await replica.stop();
  t.equal((await watcher.closed).code, 1012);
  const next = await createReplica(t, { databaseUrl, runtimeUrl: runtime.url });
  const back = await next.watch('ann', threadId, { after: 1, epoch: '1.1' });
  thread?.push('on_llm_stream', { content: 'b' });
  thread?.pushFiles({ '/a.md': 'two' });
  thread?.end();
  await back.closed;
  t.match(back.frames[0], { event_type: 'on_subscribed', data: { recovery: 'exact' } });
  t.strictSame(back.numbers(), [2, 3, 4]);
  const proposal = await next.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.match(proposal.body, { status: 'completed', attempt: 1 });
  t.equal(runtime.threads.size, 1, 'from one run');
});

t.test('messages of the owner reach the run, and what it cannot hear is said', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  const thread = runtime.threads.get(threadId);
  thread?.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  watcher.socket.send(JSON.stringify({ type: 'message', content: 'mind the tests' }));
  await until(() => (thread?.messages.length ?? 0) > 0);
  t.strictSame(thread?.messages, [{ type: 'message', content: 'mind the tests' }]);
  await replica.call('ann', 'PUT', `/api/proposals/${proposalId}/access/bob`);
  const bob = await replica.watch('bob', threadId);
  bob.socket.send(JSON.stringify({ type: 'message', content: 'me too' }));
  t.match(await bob.until('on_rejected'), { data: { code: 'forbidden' } });
  await replica.call('ann', 'DELETE', `/api/proposals/${proposalId}/access/bob`);
  t.equal((await bob.closed).code, 4403);
  watcher.socket.send(JSON.stringify({ type: 'cancel' }));
  t.match(await watcher.until('error'), { data: { code: 'cancelled' } });
});

t.test(
  'deleting a workflow closes the sockets on its runs, also where a cancel was on its way',
  async (t) => {
    const { replica, runtime } = await house(t, { cancel: () => ({ status: 202, body: {} }) });
    for (const cancelsBefore of [false, true]) {
      const { workflowId, proposalId, threadId } = await startRefinement(replica, 'ann');
      const watcher = await replica.watch('ann', threadId);
      runtime.threads.get(threadId)?.push('on_llm_stream', { content: 'a' });
      await watcher.until('on_llm_stream');
      if (cancelsBefore) await replica.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`);
      await replica.call('ann', 'DELETE', `/api/workflows/${workflowId}`);
      t.equal((await watcher.closed).code, 4404);
      t.notOk(watcher.kinds().includes('end'), 'told nothing more of it');
      await runtime.untilRequest('cancel');
    }
  },
);

t.test('files with unsafe paths are refused and named, the rest goes on', async (t) => {
  const { replica, runtime } = await house(t);
  const { proposalId, threadId } = await startRefinement(replica, 'ann');
  const watcher = await replica.watch('ann', threadId);
  runtime.threads.get(threadId)?.pushFiles({ '/a.md': 'two', '/../etc/passwd': 'x', 'b.md': 'y' });
  runtime.threads.get(threadId)?.end();
  const end = await watcher.until('end');
  t.strictSame(Object.keys(end.data.files), ['/a.md']);
  t.match(end.data.warnings, [
    { code: 'unsafe_path', path: '/../etc/passwd' },
    { code: 'unsafe_path', path: 'b.md' },
  ]);
  const proposal = await replica.call('ann', 'GET', `/api/proposals/${proposalId}`);
  t.strictSame(Object.keys(proposal.body.generated_files), ['/a.md']);
});

t.test(
  'one trace leads from the front end’s request through the call to the runtime to the commit of the end',
  async (t) => {
    const exporter = new InMemorySpanExporter();
    const processors = [new SimpleSpanProcessor(exporter)];
    const { tracer } = createTracing({ serviceName: 'test', otlpEndpoint: null, processors });
    const { url: databaseUrl } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    t.teardown(() => runtime.stop());
    const replica = await createReplica(t, { databaseUrl, runtimeUrl: runtime.url, tracer });
    const workflow = await replica.call('ann', 'POST', '/api/workflows', {
      name: 'w',
      files: { '/a.md': 'one' },
    });
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const started = await replica.call(
      'ann',
      'POST',
      `/api/workflows/${workflow.body.id}/refinements`,
      { user_prompt: 'Change it' },
      { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
    );
    const thread = runtime.threads.get(started.body.thread_id);
    const watcher = await replica.watch('ann', started.body.thread_id);
    thread?.pushFiles({ '/a.md': 'two' });
    thread?.end();
    await watcher.closed;

    const spans = exporter.getFinishedSpans().filter((span) => span.spanContext().traceId === traceId);
    const named = (name: string) => spans.find((span) => span.name === name);
    const request = named('POST /api/workflows/{workflow_id}/refinements');
    const invoke = named('deepagents_runtime.invoke');
    t.equal(request?.parentSpanContext?.spanId, '00f067aa0ba902b7', 'the front end’s span is the first');
    for (const name of [
      'postgresql.start_proposal',
      'deepagents_runtime.invoke',
      'postgresql.commit_phase',
      'postgresql.commit_completed',
    ]) {
      t.equal(named(name)?.parentSpanContext?.spanId, request?.spanContext().spanId, name);
    }
    const sent = runtime.requestsOf('invoke')[0]?.headers.traceparent;
    t.equal(sent, `00-${traceId}-${invoke?.spanContext().spanId}-01`, 'and the runtime goes on with it');
    const foreign = exporter.getFinishedSpans().map(({ name }) => name.split(/[ .]/)[0]);
    t.notOk(foreign.includes('slonik'), 'no span of each step of each statement');
    const polls = exporter.getFinishedSpans().filter(({ name }) => /list_nodes|reread_threads/.test(name));
    t.strictSame(polls, [], 'what runs all the time is in no trace');
  },
);
