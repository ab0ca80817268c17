import { once } from 'node:events';
import { test } from 'tap';
import { WebSocket } from 'ws';
import { jobOf } from '../support/runtime-client-fixture.js';
import { createScriptedRuntime, type ScriptedRuntime } from '../support/scripted-runtime.js';
import { wireFilesOf } from '../support/scripted-thread.js';
import { until } from '../support/until.js';

async function start(runtime: ScriptedRuntime, id: string) {
  const response = await fetch(`${runtime.url}/deepagents-runtime/invoke`, {
    method: 'POST',
    body: JSON.stringify(jobOf(id)),
  });
  const thread = runtime.threads.get(id);
  if (response.status !== 200 || thread === undefined) throw new Error('not started');
  return thread;
}

/** Reads until the socket closes. */
async function readAll(runtime: ScriptedRuntime, path: string) {
  const socket = new WebSocket(`${runtime.url.replace('http', 'ws')}/deepagents-runtime/stream/${path}`);
  const frames: Record<string, unknown>[] = [];
  socket.on('message', (data) => frames.push(JSON.parse(String(data))));
  socket.on('error', () => undefined);
  const closed = once(socket, 'close');
  await once(socket, 'message');
  return { socket, frames, closed };
}

test('a reader resumes in its epoch, and starts anew in another or beyond the end', async (t) => {
  const runtime = await createScriptedRuntime({
    run: (thread) => thread.pushFiles({ '/a': 'x', '/b': null }),
  });
  t.teardown(runtime.stop);
  const thread = await start(runtime, 'job');
  thread.push('on_llm_stream', { content: 'a' });
  const reads = await Promise.all(
    ['job?after=1&epoch=1', 'job?after=1&epoch=7', 'job?after=9', 'job'].map((path) =>
      readAll(runtime, path),
    ),
  );
  t.equal(thread.readers, 4);
  thread.end();
  await Promise.all(reads.map(({ closed }) => closed));
  t.same(
    reads.map(({ frames }) => frames.map(({ seq }) => seq)),
    [
      [undefined, 2, 3],
      [undefined, 1, 2, 3],
      [undefined, 1, 2, 3],
      [undefined, 1, 2, 3],
    ],
  );
  t.same(thread.state().generated_files, wireFilesOf({ '/a': 'x', '/b': null }));
});

test('a restart cuts the readers and begins the log anew in the next epoch', async (t) => {
  const runtime = await createScriptedRuntime();
  t.teardown(runtime.stop);
  const thread = await start(runtime, 'job');
  thread.push('on_llm_stream');
  const first = await readAll(runtime, 'job');
  thread.restart();
  t.same((await first.closed)[0], 1006);
  thread.pushFiles({ '/a': 'x' });
  thread.fail('runtime_error', 'no', true);
  const second = await readAll(runtime, 'job?after=1&epoch=1');
  t.same((await second.closed)[0], 1000);
  t.match(second.frames, [
    { data: { epoch: 2, last_seq: 3 } },
    { seq: 1 },
    { seq: 2 },
    { event_type: 'end' },
  ]);
  t.match(thread.state(), { status: 'failed', error: { code: 'runtime_error', retryable: true } });
});

test('an older runtime numbers nothing, opens nothing, and may leave the socket open after the end', async (t) => {
  const runtime = await createScriptedRuntime({ numbered: false, closesAfterEnd: false });
  t.teardown(runtime.stop);
  const thread = await start(runtime, 'job');
  thread.push('on_llm_stream', { raw_event: 'x' });
  thread.end();
  const { frames, socket, closed } = await readAll(runtime, 'job?after=1');
  socket.send(JSON.stringify({ type: 'message', content: 'hear me' }));
  socket.send('nonsense');
  await until(() => thread.messages.length === 2 && frames.length === 2);
  t.same(thread.messages, [{ type: 'message', content: 'hear me' }, 'nonsense']);
  t.same(frames, [
    { event_type: 'on_llm_stream', data: { raw_event: 'x' } },
    { event_type: 'end', data: {} },
  ]);
  thread.closeReaders(4000, 'enough');
  t.same((await closed)[0], 4000);
});

test('a runtime that goes away keeps its threads, and comes back on the same port', async (t) => {
  const runtime = await createScriptedRuntime();
  t.teardown(runtime.stop);
  const thread = await start(runtime, 'job');
  thread.push('on_llm_stream');
  const { closed } = await readAll(runtime, 'job');
  await runtime.goAway();
  t.same((await closed)[0], 1006);
  await t.rejects(fetch(`${runtime.url}/deepagents-runtime/state/job`));
  await runtime.comeBack();
  t.equal((await fetch(`${runtime.url}/deepagents-runtime/state/job`)).status, 200);
});

test('a script may speak by itself, and the same job twice is one run', async (t) => {
  const runtime = await createScriptedRuntime({ stream: (socket) => socket.send('{"raw":true}') });
  t.teardown(runtime.stop);
  t.equal(await start(runtime, 'job'), await start(runtime, 'job'));
  const { frames, socket } = await readAll(runtime, 'unknown');
  t.same(frames, [{ raw: true }]);
  socket.terminate();
  t.equal((await runtime.untilRequest('invoke', 2)).threadId, 'job');
});
