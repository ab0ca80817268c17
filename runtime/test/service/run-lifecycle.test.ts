import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { createScriptedRunner, endlessScript, file, type Script } from '../support/scripted-runner.js';
import { jobOf, startRuntime } from '../support/test-runtime.js';

const named = (script: string, changes: Record<string, unknown> = {}) =>
  jobOf({ agent_definition: { script }, ...changes });

/** Plays what the job's definition names. */
const script: Script = async (stage) => {
  const { token, files, wait, messages, input } = stage;
  switch (input.agent_definition.script) {
    case 'fail':
      token('half');
      files({ '/half.md': file('half') });
      throw new Error('the model is gone');
    case 'silent':
      await wait(600_000);
      break;
    case 'listen':
      token('listening');
      await stage.spokenTo();
      files({ '/heard.md': file(...messages) });
      return { status: 'completed', files: { '/heard.md': file(...messages) } };
    case 'chatty':
      for (let n = 0; n < 300; n++) {
        token(`${n}`);
        await wait(10);
      }
      return { status: 'completed', files: { '/a.md': null } };
    case 'short':
      token('x');
      await wait(30);
      return { status: 'completed', files: {} };
  }
  return endlessScript(stage);
};

test('A run ends in one of the ways that the contract names', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(script);
  const runtime = await startRuntime(database.url, runner, {
    runConcurrency: 3,
    startConcurrency: 3,
    queueLimit: 2,
  });
  t.teardown(() => runtime.stop());
  const kinds = (stream: { frames: { event_type: string }[] }) =>
    stream.frames.map((frame) => frame.event_type);

  await t.test('a failure is told by error, then end, and by state', async (t) => {
    await runtime.invoke(named('fail', { job_id: 'fails' }));
    const stream = runtime.stream('fails');
    t.equal(await stream.closed, 1000);
    t.same(kinds(stream), ['on_open', 'on_llm_stream', 'on_state_update', 'error', 'end']);
    const error = { code: 'runtime_error', message: 'Error: the model is gone', retryable: true };
    t.same(stream.frames[3]?.data, error);
    t.match((await runtime.state('fails')).body, {
      status: 'failed',
      error,
      result: null,
      generated_files: { '/half.md': file('half') },
    });
  });

  await t.test('a reader that sees end finds the final state (rule 23)', async (t) => {
    const ids = Array.from({ length: 12 }, (_, n) => `ends-${n}`);
    for (const job_id of ids) {
      await runtime.invoke(named('short', { job_id }));
      await runtime.stream(job_id).until((frame) => frame.event_type === 'end');
      t.equal((await runtime.state(job_id)).body.status, 'completed');
    }
  });

  await t.test('cancel is 202, ends the stream with error and end, and is 202 again later', async (t) => {
    await runtime.invoke(named('endless', { job_id: 'cancelled' }));
    const stream = runtime.stream('cancelled');
    await stream.until((frame) => frame.event_type === 'on_state_update');
    t.match((await runtime.state('cancelled')).body, {
      status: 'running',
      result: null,
      generated_files: { '/begun.md': {} },
    });
    t.equal(await runtime.cancel('cancelled'), 202);
    t.equal(await stream.closed, 1000);
    t.same(kinds(stream).slice(-2), ['error', 'end']);
    t.match(stream.frames.at(-2)?.data, { code: 'cancelled', retryable: false });
    t.match((await runtime.state('cancelled')).body, { status: 'failed', error: { code: 'cancelled' } });
    t.equal(await runtime.cancel('cancelled'), 202);
  });

  await t.test('a run that says nothing is stalled, one that speaks slowly is not', async (t) => {
    const apart = await createTestDatabase();
    t.teardown(() => apart.drop());
    const hasty = await startRuntime(apart.url, runner, { runIdleMs: 2_000 });
    t.teardown(() => hasty.stop());
    await hasty.invoke(named('silent', { job_id: 'silent' }));
    await hasty.invoke(named('chatty', { job_id: 'chatty' }));
    const { error } = await hasty.finished('silent');
    t.match(error, { code: 'stalled', retryable: true });
    const chatty = await hasty.finished('chatty');
    t.equal(chatty.status, 'completed');
    t.same(chatty.generated_files, { '/a.md': null });
  });

  await t.test('a message of the reader is heard, and what is not understood is rejected', async (t) => {
    await runtime.invoke(named('listen', { job_id: 'listens' }));
    const stream = runtime.stream('listens');
    await stream.until((frame) => frame.event_type === 'on_llm_stream');
    for (const text of [
      'no json',
      '[]',
      '{"type":"other"}',
      '{"type":"message"}',
      '{"__proto__":1,"type":"cancel"}',
    ])
      stream.socket.send(text);
    stream.socket.send(Buffer.from([1, 2]));
    stream.socket.send('{"type":"message","content":"louder"}');
    t.equal(await stream.closed, 1000);
    const rejected = stream.frames.filter((frame) => frame.event_type === 'on_rejected');
    t.equal(rejected.length, 6);
    for (const frame of rejected) {
      t.match(frame.data, { code: 'bad_message', message: String });
      t.equal(frame.seq, undefined, 'own frames are never counted');
    }
    const update = stream.frames.find((frame) => frame.event_type === 'on_state_update');
    t.match(update?.data, { messages: ['louder'], files: { '/heard.md': { content: ['louder'] } } });
  });

  await t.test('a message over 64 KiB closes with 1009', async (t) => {
    await runtime.invoke(named('endless', { job_id: 'flooded' }));
    const stream = runtime.stream('flooded');
    await stream.until((frame) => frame.event_type === 'on_open');
    stream.socket.send(JSON.stringify({ type: 'message', content: 'x'.repeat(70_000) }));
    t.equal(await stream.closed, 1009);
    await runtime.cancel('flooded');
    await runtime.finished('flooded');
  });

  await t.test('the reader cancels over its socket', async (t) => {
    await runtime.invoke(named('endless', { job_id: 'reader-cancels' }));
    const stream = runtime.stream('reader-cancels');
    await stream.until((frame) => frame.event_type === 'on_llm_stream');
    stream.socket.send('{"type":"cancel"}');
    t.equal(await stream.closed, 1000);
    t.match(stream.frames.at(-2)?.data, { code: 'cancelled' });
  });

  await t.test(
    'jobs beyond the bound wait, in order, their streams open at once; beyond the queue is 429 (rule 22)',
    async (t) => {
      const before = runner.started.length;
      const ids = ['q1', 'q2', 'q3', 'q4', 'q5'];
      for (const job_id of ids) t.equal((await runtime.invoke(named('listen', { job_id }))).status, 200);
      await eventually('three run', () => runner.started.length - before === 3);
      const full = await runtime.invoke(named('listen', { job_id: 'q6' }));
      t.match(full, { status: 429, body: { code: 'queue_full' } });
      t.equal(
        (await runtime.invoke(named('listen', { job_id: 'q5' }))).status,
        200,
        'a repeat is no new job',
      );
      await runtime.cleanUp('q0');
      const gone = { status: 410, body: { code: 'thread_gone' } };
      t.match(await runtime.invoke(named('listen', { job_id: 'q0' })), gone, 'nor one that was cleaned up');
      t.equal((await runtime.state('q4')).body.status, 'running');
      const metrics = await runtime.request('/metrics');
      t.ok(String(metrics.body).includes('deepagents_runtime_queue_length 2'));

      const waiting = runtime.stream('q4');
      const opening = await waiting.until((frame) => frame.event_type === 'on_open');
      t.same(opening.data, { epoch: 1, first_seq: 0, last_seq: 0 });
      waiting.socket.send('{"type":"message","content":"early"}');

      t.equal(await runtime.cancel('q5'), 202, 'one that waits does not wait for its end');
      t.match((await runtime.finished('q5')).error, { code: 'cancelled' });
      const ended = runtime.stream('q5');
      await ended.closed;
      t.same(kinds(ended), ['on_open', 'error', 'end']);

      await runtime.cancel('q1');
      t.equal(await waiting.closed, 1000);
      t.match(waiting.frames.at(-2)?.data, { messages: ['early'] });
      await runtime.cancel('q2');
      await runtime.cancel('q3');
      t.same(
        runner.started.slice(before).map((run) => run.threadId),
        ['q1', 'q2', 'q3', 'q4'],
      );
    },
  );
});

test('A run over its deadline is ended, also when it resumes after it', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(endlessScript);
  const runtime = await startRuntime(database.url, runner, { runDeadlineMs: 1_500 });
  await runtime.invoke(jobOf({ job_id: 'late' }));
  t.match((await runtime.finished('late')).error, { code: 'deadline_exceeded', retryable: true });
  await runtime.stop();

  await database.query("UPDATE runs SET status = 'running', finished_at = NULL, files = NULL, error = NULL");
  const next = await startRuntime(database.url, runner, { runDeadlineMs: 1_500 });
  t.teardown(() => next.stop());
  const stream = next.stream('late');
  t.equal(await stream.closed, 1000);
  t.same(
    stream.frames.map((frame) => frame.event_type),
    ['on_open', 'on_state_update', 'error', 'end'],
    'its new log still begins with the whole state',
  );
  t.equal(runner.started.length, 1, 'nothing is started for it');
  t.match((await next.state('late')).body, { generated_files: { '/begun.md': {} } });
});

test('A run that cannot even begin, or whose result the database refuses, has failed', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(async () => ({
    status: 'completed',
    files: { '/a.md': file('what no row may hold') },
  }));
  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  await database.query("ALTER TABLE runs ADD CHECK (files::text NOT LIKE '%no row may hold%')");
  await runtime.invoke(jobOf({ job_id: 'refused' }));
  t.match(await runtime.finished('refused'), {
    status: 'failed',
    error: { code: 'runtime_error', message: 'The result could not be stored', retryable: true },
    generated_files: {},
  });

  runner.run = () => {
    throw new Error('no agent today');
  };
  await runtime.invoke(jobOf({ job_id: 'unbuilt' }));
  t.match(await runtime.finished('unbuilt'), { error: { code: 'runtime_error', retryable: true } });
});
