import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { briefScript, createScriptedRunner, file } from '../support/scripted-runner.js';
import { jobOf, startRuntime } from '../support/test-runtime.js';

test('A job becomes a run that is streamed, finished and told', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(briefScript);
  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  const events = ['on_llm_stream', 'on_llm_stream', 'on_llm_stream', 'on_state_update', 'end'];

  await t.test('invoke answers with the job id as the thread id', async (t) => {
    const { status, body } = await runtime.invoke(jobOf({ job_id: 'job-1' }));
    t.equal(status, 200);
    t.same(body, { thread_id: 'job-1', status: 'started' });
  });

  await t.test('the stream opens with its epoch, counts from 1 and closes with 1000 after end', async (t) => {
    const stream = runtime.stream('job-1');
    t.equal(await stream.closed, 1000);
    const [opening, ...frames] = stream.frames;
    t.equal(opening?.event_type, 'on_open');
    t.match(opening?.data, { epoch: 1, first_seq: Number, last_seq: Number });
    t.same(
      frames.map((frame) => frame.event_type),
      events,
    );
    t.same(
      frames.map((frame) => frame.seq),
      [1, 2, 3, 4, 5],
    );
  });

  await t.test('every frame begins with seq, event_type and data, in this order', async (t) => {
    const stream = runtime.stream('job-1');
    await stream.closed;
    t.equal(stream.texts[1], '{"seq":1,"event_type":"on_llm_stream","data":{"content":"one"}}');
    t.equal(stream.texts.at(-1), '{"seq":5,"event_type":"end","data":{}}');
  });

  await t.test('state tells that it is completed, with its files', async (t) => {
    const body = await runtime.finished('job-1');
    t.same(body, {
      thread_id: 'job-1',
      status: 'completed',
      result: { message: 'The run completed' },
      generated_files: { '/a.md': file('hello', '') },
    });
  });

  await t.test('a reader that comes back gets exactly what it missed', async (t) => {
    const stream = runtime.stream('job-1', '?after=3&epoch=1');
    await stream.closed;
    t.same(
      stream.frames.map((frame) => frame.seq),
      [undefined, 4, 5],
    );
    const atEnd = runtime.stream('job-1', '?after=5');
    t.equal(await atEnd.closed, 1000);
    t.equal(atEnd.frames.length, 1, 'only on_open');
  });

  await t.test('a foreign epoch or a position beyond the log replays from the start', async (t) => {
    for (const query of ['?after=3&epoch=7', '?after=6', '?after=99&epoch=1']) {
      const stream = runtime.stream('job-1', query);
      await stream.closed;
      t.same(
        stream.frames.slice(1).map((frame) => frame.seq),
        [1, 2, 3, 4, 5],
        query,
      );
    }
  });

  await t.test('a position that is no number is refused before the upgrade', async (t) => {
    for (const query of ['?after=-1', '?after=x', '?after=1.5', '?epoch=one', '?after='])
      t.equal(await runtime.refused('job-1', query), 400, query);
  });

  await t.test('an unknown thread is 404 everywhere (rule 22)', async (t) => {
    t.equal(await runtime.refused('nobody'), 404);
    t.same(await runtime.state('nobody'), {
      status: 404,
      body: { code: 'thread_not_found', message: 'Unknown thread' },
    });
    t.equal(await runtime.cancel('nobody'), 404);
    t.equal((await runtime.state('%E0%A4%A')).status, 404);
    t.equal((await runtime.state('a%00b')).status, 404);
    t.equal((await runtime.state('x'.repeat(256))).status, 404);
  });

  await t.test('the same job again is the same answer and no second run', async (t) => {
    const before = runner.started.length;
    const job = jobOf({ job_id: 'job-2' });
    const answers = await Promise.all(Array.from({ length: 20 }, () => runtime.invoke(job)));
    for (const { status, body } of answers) {
      t.equal(status, 200);
      t.same(body, { thread_id: 'job-2', status: 'started' });
    }
    await runtime.finished('job-2');
    const other = await runtime.invoke({ ...job, agent_definition: { other: true } });
    t.same(other.body, { thread_id: 'job-2', status: 'started' });
    t.equal(runner.started.length, before + 1);
  });

  await t.test('a non-upgrade of the stream and an unknown path are 404 with a code', async (t) => {
    t.match(await runtime.request('/deepagents-runtime/stream/job-1'), {
      status: 404,
      body: { code: 'not_found' },
    });
    t.match(await runtime.request('/nowhere'), { status: 404, body: { code: 'not_found' } });
  });
});
