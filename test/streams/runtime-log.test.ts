import { test } from 'tap';
import type { WebSocket } from 'ws';
import type { RuntimeLog } from '../../src/streams/runtime-log.js';
import { createRuntimeLogFixture } from '../support/runtime-log-fixture.js';
import { until } from '../support/until.js';

const range = { threadId: 'run', epoch: '2.1', after: 0, upTo: 100 };
const read = async (log: RuntimeLog, more: Partial<typeof range> = {}, bytes?: number) => {
  const { frames, rest } = await log.read({ ...range, ...more }, bytes);
  return {
    numbers: frames.map(({ number }) => number),
    rest,
    texts: frames.map(({ bytes }) => String(bytes)),
  };
};
const opening = (epoch = 1, first = 1, last = 9) =>
  JSON.stringify({ event_type: 'on_open', data: { epoch, first_seq: first, last_seq: last } });
const token = (seq: number) => JSON.stringify({ seq, event_type: 'on_llm_stream', data: {} });

test('a part of a live run’s log comes byte for byte, up to its last number or its size', async (t) => {
  const { runtime, runtimeLog, run } = await createRuntimeLogFixture((end) => t.teardown(end));
  const thread = await run('run', 20, 100);
  const some = await read(runtimeLog, { after: 3, upTo: 7 });
  t.strictSame(some.numbers, [4, 5, 6, 7]);
  t.equal(some.rest, 'whole');
  t.equal(
    some.texts[0],
    JSON.stringify({ seq: 4, event_type: 'on_llm_stream', data: { content: 'é3'.padEnd(100, 'x') } }),
  );
  t.match(runtime.requestsOf('stream').at(-1)?.url, /after=3&epoch=1/);
  t.match(await read(runtimeLog, { after: 15 }), { numbers: [16, 17, 18, 19, 20], rest: 'whole' });
  const large = { after: 2, upTo: 20 };
  t.match(await read(runtimeLog, large, 400), { numbers: [3, 4, 5], rest: 'more' });
  t.match(await read(runtimeLog, large, 1), { numbers: [3], rest: 'more' }, 'at least one');
  t.match(await read(runtimeLog, { after: 20 }), { numbers: [], rest: 'whole' }, 'nothing is waited for');
  await until(() => thread.readers === 0);
  t.equal(thread.readers, 0, 'no connection is left');
});

test('the run’s own error and end are never part of it, nor what comes after them', async (t) => {
  const { runtimeLog, run } = await createRuntimeLogFixture((end) => t.teardown(end));
  (await run('run', 2)).end();
  const failed = await run('failed', 2);
  failed.push('error', { code: 'x', message: 'y' });
  failed.push('on_llm_stream', { content: 'after' });
  failed.end();
  t.match(await read(runtimeLog), { numbers: [1, 2], rest: 'whole' });
  t.match(await read(runtimeLog, { threadId: 'failed' }), { numbers: [1, 2], rest: 'whole' });
});

test('another log, one that does not number or does not open, and an unknown run are gone', async (t) => {
  const { runtime, runtimeLog, run } = await createRuntimeLogFixture((end) => t.teardown(end));
  const thread = await run('run', 3);
  t.match(await read(runtimeLog, { epoch: '2.2' }), { numbers: [], rest: 'gone' });
  t.match(await read(runtimeLog, { threadId: 'nobody' }), { numbers: [], rest: 'gone' });
  const asked = runtime.requestsOf('stream').length;
  t.match(await read(runtimeLog, { epoch: '2.a1b2c3d4' }), { numbers: [], rest: 'gone' });
  t.equal(runtime.requestsOf('stream').length, asked, 'an epoch of ours is not asked for');
  thread.restart();
  t.match(await read(runtimeLog), { numbers: [], rest: 'gone' });
  const unnumbered = token(1).replace('"seq":1,', '');
  for (const frames of [[opening(), unnumbered], [token(1)], [opening(1, -1)]]) {
    runtime.script.stream = (socket) => {
      for (const frame of frames) socket.send(frame, { binary: false });
    };
    t.match(await read(runtimeLog), { numbers: [], rest: 'gone' }, frames.join(' '));
  }
});

test('a runtime that refuses, hangs or breaks off is away, and what has come by then is a part', async (t) => {
  const { runtime, runtimeLog, hasty, run } = await createRuntimeLogFixture((end) => t.teardown(end));
  await run('run', 1);
  for (const instead of [{ status: 503 }, 'cut'] as const) {
    runtime.script.upgrade = () => instead;
    t.match(await read(runtimeLog), { numbers: [], rest: 'away' }, JSON.stringify(instead));
  }
  runtime.script.upgrade = () => 'hang';
  t.match(await read(hasty(100)), { numbers: [], rest: 'away' }, 'hang');
  delete runtime.script.upgrade;
  const says = (frames: string[], then: (socket: WebSocket) => void) => {
    runtime.script.stream = (socket) => {
      for (const frame of frames) socket.send(frame, { binary: false });
      then(socket);
    };
  };
  says([], (socket) => socket.close(1013));
  t.match(await read(runtimeLog), { numbers: [], rest: 'away' });
  says([opening(), token(1)], (socket) => socket.close(1012));
  t.match(await read(runtimeLog), { numbers: [1], rest: 'more' });
  says([opening(), token(1), token(2)], () => undefined);
  t.match(await read(hasty(2_000)), { numbers: [1, 2], rest: 'more' }, 'and then it is silent');
  await runtime.goAway();
  t.match(await read(runtimeLog), { numbers: [], rest: 'away' });
});

test('a hole ends a part, and is believed where a connection begins with it', async (t) => {
  const { runtime, runtimeLog } = await createRuntimeLogFixture((end) => t.teardown(end));
  const log = [token(1), token(2), '{"seq":3,', '{"event_type":"on_rejected","data":{}}', token(4), token(5)];
  runtime.script.stream = (socket) => {
    // Whatever the position: what was seen already is left out.
    for (const frame of [opening(), ...log, token(9)]) socket.send(frame, { binary: false });
  };
  t.match(await read(runtimeLog), { numbers: [1, 2], rest: 'more' });
  t.match(await read(runtimeLog, { after: 2, upTo: 5 }), { numbers: [4, 5], rest: 'whole' });
  t.match(await read(runtimeLog, { after: 5, upTo: 8 }), { numbers: [], rest: 'whole' });
});
