import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { eventually } from '../support/eventually.js';
import { briefScript, createScriptedRunner, file, type Script } from '../support/scripted-runner.js';
import { jobOf, type Stream, startRuntime } from '../support/test-runtime.js';

const kinds = (stream: { frames: { event_type: string }[] }) =>
  stream.frames.map((frame) => frame.event_type);

/** Says that the reader is there, to a run that waits for it. */
const speak = async (stream: Stream) => {
  await stream.opened;
  stream.socket.send(JSON.stringify({ type: 'message', content: 'go on' }));
};

/** Waits for ever the first time, finishes the second. */
const secondTime: Script = async ({ resumed, token, files, wait }) => {
  if (resumed) {
    token('again');
    return { status: 'completed', files: { '/first.md': file('1'), '/second.md': file('2') } };
  }
  token('first');
  files({ '/first.md': file('1') });
  await wait(600_000);
  return { status: 'completed', files: {} };
};

test('A finished run is told after a restart as one epoch more (rule 20)', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(async (stage) => {
    if (stage.input.agent_definition.fail !== true) return briefScript(stage);
    throw new Error('no');
  });
  const before = await startRuntime(database.url, runner);
  await before.invoke(jobOf({ job_id: 'good' }));
  await before.invoke(jobOf({ job_id: 'bad', agent_definition: { fail: true } }));
  const live = before.stream('good');
  await live.closed;
  await before.finished('bad');
  await before.stop();

  let runtime = await startRuntime(database.url, runner);
  const read = async (threadId: string, query = '') => {
    const stream = runtime.stream(threadId, query);
    t.equal(await stream.closed, 1000);
    return stream;
  };
  const [good, same] = await Promise.all([read('good'), read('good')]);
  t.same(kinds(good), ['on_open', 'on_state_update', 'end']);
  t.same(good.frames[0]?.data, { epoch: 2, first_seq: 1, last_seq: 2 });
  t.same(good.frames[1]?.data, {
    files: { '/a.md': file('hello', '') },
    todos: [],
    messages: [{ role: 'assistant', content: 'read' }],
  });
  t.same(same.texts, good.texts, 'two readers at once read one log');
  t.same(kinds(await read('good', '?after=4&epoch=1')), kinds(good), 'the old epoch is foreign');
  t.same(kinds(await read('good', '?after=1&epoch=2')), ['on_open', 'end']);
  const bad = await read('bad');
  t.same(kinds(bad), ['on_open', 'on_state_update', 'error', 'end']);
  t.match(bad.frames[2]?.data, { code: 'runtime_error', message: 'Error: no', retryable: true });
  t.equal(runner.started.length, 2, 'nothing runs again');
  await runtime.stop();

  runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  t.same((await read('good')).texts, good.texts, 'rebuilt again it is the same log');
});

test('A stopped process leaves its runs to the next one, which begins a new epoch (rule 20)', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(secondTime);
  const before = await startRuntime(database.url, runner, { runConcurrency: 1 });
  await before.invoke(jobOf({ job_id: 'halfway' }));
  await before.invoke(jobOf({ job_id: 'queued' }));
  const stream = before.stream('halfway');
  const queued = before.stream('queued');
  await stream.until((frame) => frame.event_type === 'on_state_update');
  await queued.until((frame) => frame.event_type === 'on_open');
  await before.stop();
  t.equal(await stream.closed, 1012);
  t.equal(await queued.closed, 1012);
  t.notOk(kinds(stream).includes('end'));

  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  const again = runtime.stream('halfway', '?after=2&epoch=1');
  t.equal(await again.closed, 1000);
  t.same(kinds(again), ['on_open', 'on_state_update', 'on_llm_stream', 'end']);
  t.equal(again.frames[0]?.data.epoch, 2);
  t.match(again.frames[1], { seq: 1, data: { files: { '/first.md': {} } } });
  t.match(await runtime.finished('halfway'), { status: 'completed', generated_files: { '/second.md': {} } });
  t.equal((await runtime.finished('queued')).status, 'completed');
  t.equal((await runtime.stream('queued').until((frame) => frame.event_type === 'on_open')).data.epoch, 2);
});

test('A process that stops finishes what is nearly done, and does not wait for what hangs', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(briefScript);
  const run = runner.run.bind(runner);
  runner.run = (threadId, input, onEvent, options) => {
    const handle = run(threadId, input, onEvent, options);
    if (threadId === 'hangs') return { ...handle, done: new Promise(() => {}) };
    return { ...handle, done: sleep(100).then(() => handle.done) };
  };
  const runtime = await startRuntime(database.url, runner, { stopGraceMs: 4_000 });
  await runtime.invoke(jobOf({ job_id: 'nearly' }));
  await runtime.invoke(jobOf({ job_id: 'hangs' }));
  const stream = runtime.stream('nearly');
  await stream.until((frame) => frame.event_type === 'on_state_update');
  const stopping = runtime.stop();
  t.equal(await stream.closed, 1000);
  const code = await new Promise((resolve) => {
    connect(runtime.port, '127.0.0.1', () => resolve('let in')).on('error', (error) =>
      resolve('code' in error ? error.code : error),
    );
  });
  t.equal(code, 'ECONNREFUSED', 'nobody new is let in');
  t.equal((await runtime.request('/ready')).status, 503);
  t.equal((await runtime.invoke()).status, 503);
  await stopping;
  const rows = await database.query('SELECT thread_id, status FROM runs ORDER BY thread_id');
  t.same(rows, [
    { thread_id: 'hangs', status: 'running' },
    { thread_id: 'nearly', status: 'completed' },
  ]);
});

test('A cancel holds over a crash between its commit and the end of the run', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(secondTime);
  const before = await startRuntime(database.url, runner);
  await before.invoke(jobOf({ job_id: 'wished' }));
  await before.stream('wished').until((frame) => frame.event_type === 'on_state_update');
  await before.stop();
  await database.query('UPDATE runs SET cancel_requested_at = now()');
  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  const stream = runtime.stream('wished');
  await stream.closed;
  t.same(kinds(stream), ['on_open', 'on_state_update', 'error', 'end']);
  t.match((await runtime.state('wished')).body, {
    status: 'failed',
    error: { code: 'cancelled' },
    generated_files: { '/first.md': {} },
  });
  t.equal(runner.started.length, 1);
});

test('A run that PostgreSQL left alone goes on in the next epoch when it answers (rule 23)', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const runner = createScriptedRunner(async (stage) => {
    if (!stage.resumed) {
      stage.token('first');
      stage.files({ '/first.md': file('1') });
      await stage.spokenTo();
      gate.close();
      return { status: 'interrupted', reason: 'store_unavailable' };
    }
    return secondTime(stage);
  });
  const runtime = await startRuntime(gate.url, runner);
  t.teardown(() => runtime.stop());
  await runtime.invoke(jobOf({ job_id: 'alone' }));
  const stream = runtime.stream('alone');
  await speak(stream);
  t.equal(await stream.closed, 1012, 'the old log is not finished');
  const waiting = runtime.stream('alone', '?after=2&epoch=1');
  await waiting.opened;
  await sleep(150);
  t.same(kinds(waiting), [], 'its epoch is not committed yet');
  await gate.open();
  t.equal(await waiting.closed, 1000);
  t.same(kinds(waiting), ['on_open', 'on_state_update', 'on_llm_stream', 'end']);
  t.equal(waiting.frames[0]?.data.epoch, 2);
  t.equal((await runtime.state('alone')).body.status, 'completed');
});

test('A run that is cleaned up, or cancelled, while it waits for PostgreSQL does not go on', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const runner = createScriptedRunner(async ({ token, spokenTo }) => {
    token('first');
    await spokenTo();
    gate.close();
    return { status: 'interrupted', reason: 'store_unavailable' };
  });
  const runtime = await startRuntime(gate.url, runner);
  t.teardown(() => runtime.stop());
  for (const [id, statement] of [
    ['deleted', "UPDATE runs SET tombstone_at = now() WHERE thread_id = 'deleted'"],
    ['cancelled', "UPDATE runs SET cancel_requested_at = now() WHERE thread_id = 'cancelled'"],
  ] as const) {
    await runtime.invoke(jobOf({ job_id: id }));
    const stream = runtime.stream(id);
    await speak(stream);
    t.equal(await stream.closed, 1012);
    const waiting = runtime.stream(id);
    await waiting.opened;
    await database.query(statement);
    await gate.open();
    const code = await waiting.closed;
    if (id === 'deleted') t.equal(code, 1012);
    else t.same(kinds(waiting).slice(-2), ['error', 'end']);
  }
  t.equal(runner.started.length, 2);
});

test('end waits for PostgreSQL, and a process that stops meanwhile leaves the run (rule 23)', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  let closed = 0;
  const runner = createScriptedRunner(async (stage) => {
    const outcome = await briefScript(stage);
    await stage.spokenTo();
    gate.close();
    closed++;
    return outcome;
  });
  const runtime = await startRuntime(gate.url, runner);
  await runtime.invoke(jobOf({ job_id: 'waits' }));
  const stream = runtime.stream('waits');
  await stream.until((frame) => frame.event_type === 'on_state_update');
  await speak(stream);
  await eventually('PostgreSQL is away', () => closed === 1);
  await sleep(150);
  t.notOk(kinds(stream).includes('end'), 'nothing says that it ended');
  await gate.open();
  t.equal(await stream.closed, 1000);
  t.equal((await runtime.state('waits')).body.status, 'completed');

  await runtime.invoke(jobOf({ job_id: 'left' }));
  const left = runtime.stream('left');
  await left.until((frame) => frame.event_type === 'on_state_update');
  await speak(left);
  await eventually('PostgreSQL is away', () => closed === 2);
  await runtime.stop();
  t.equal(await left.closed, 1012);
  const [row] = await database.query("SELECT status FROM runs WHERE thread_id = 'left'");
  t.same(row, { status: 'running' });
});

test('An invoke without an answer from PostgreSQL is run once, if it was written', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const runner = createScriptedRunner(briefScript);
  const runtime = await startRuntime(gate.url, runner);
  t.teardown(() => runtime.stop());
  const job = jobOf({ job_id: 'doubt' });
  // Its connection is made already: only the answer of the insert is lost.
  t.equal((await runtime.state('doubt')).status, 404);
  await sleep(50);
  gate.swallowAnswers();
  const invoking = runtime.invoke(job);
  while ((await database.query('SELECT FROM runs')).length === 0) await sleep(10);
  gate.close();
  t.match(await invoking, { status: 503, body: { code: 'not_ready' } });
  await gate.open();
  t.same((await runtime.invoke(job)).body, { thread_id: 'doubt', status: 'started' });
  t.equal((await runtime.finished('doubt')).status, 'completed');
  t.equal(runner.started.length, 1);
});

test('What another process took over is not told as finished by this one', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  let end = () => {};
  const runner = createScriptedRunner(async ({ token }) => {
    const ends = new Promise<void>((resolve) => {
      end = resolve;
    });
    token('x');
    await ends;
    return { status: 'completed', files: {} };
  });
  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());
  await runtime.invoke(jobOf({ job_id: 'taken' }));
  const stream = runtime.stream('taken');
  await stream.until((frame) => frame.event_type === 'on_llm_stream');
  await database.query('UPDATE runs SET generation = 2');
  end();
  t.equal(await stream.closed, 1012);
  t.equal(await runtime.refused('taken'), 503, 'its row is running, but not here');
});

test('A missing database is made, by several processes at once; without its server there is no start', async (t) => {
  const database = await createTestDatabase();
  await database.drop();
  t.teardown(() => database.drop());
  const start = () => startRuntime(database.url, createScriptedRunner(briefScript));
  const all = await Promise.all([start(), start(), start()]);
  for (const runtime of all) {
    t.equal((await runtime.request('/ready')).status, 200);
    await runtime.stop();
  }
  const gate = await createDatabaseGate(database.url);
  gate.close();
  await t.rejects(startRuntime(gate.url, createScriptedRunner(briefScript)), /ECONNREFUSED/);
  const taken = await start();
  t.teardown(() => taken.stop());
  await t.rejects(
    startRuntime(database.url, createScriptedRunner(briefScript), { port: taken.port }),
    /cannot listen/,
  );
});
