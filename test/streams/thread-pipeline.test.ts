import { test } from 'tap';
import { createPipelineFixture, seenBy } from '../support/pipeline-fixture.js';

const numbersTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);
const token = (content: string) => ({ content });

test('ten thousand frames and a state of 5 MB reach a healthy viewer without a loss', async (t) => {
  const { thread, pipeline, facts, read, view, until, counts } = await createPipelineFixture(t.teardown);
  const viewer = view();
  read();
  for (let index = 0; index < 5000; index++) thread.push('on_llm_stream', token(`word ${index} `.repeat(10)));
  thread.pushFiles({ '/big.md': 'x'.repeat(5 << 20) });
  for (let index = 0; index < 5000; index++) thread.push('on_llm_stream', token(`word ${index}`));
  thread.end();
  await until(() => facts.some(({ type }) => type === 'runtime.ended'));
  t.same(seenBy(viewer), numbersTo(10_001));
  const files = pipeline.newestFiles.files() as { '/big.md': { content: string[] } };
  t.equal(files['/big.md'].content[0]?.length, 5 << 20);
  t.equal(pipeline.damaged(), false);
  t.match(counts.take(), { on_llm_stream: 10_000, on_state_update: 1, end: 0 });
  t.match(counts.take(), { on_llm_stream: 0 }, 'counts are taken once');
  t.match(facts.at(-1), { type: 'runtime.ended', ending: { endNumber: 10_002 } });
});

test('nobody has to watch, and who comes late gets everything', async (t) => {
  const { thread, pipeline, facts, read, view, until, finish, budget } = await createPipelineFixture(
    t.teardown,
  );
  read();
  for (let index = 0; index < 20; index++) thread.push('on_llm_stream', token('a'));
  thread.pushFiles({ '/a': 'x' });
  thread.end();
  await until(() => facts.some(({ type }) => type === 'runtime.ended'));
  const before = view();
  t.same(seenBy(before), numbersTo(21), 'the end waits for the commit');
  finish(22);
  t.same(seenBy(before), numbersTo(22));
  t.equal(before.closed?.code, 1000);
  t.same(seenBy(view(20)), [21, 22]);
  t.equal(pipeline.finished(), true);
  t.ok(budget.usedBytes > 0);
  const held = (after: number, bytes: number) => pipeline.held(after, bytes).map(({ number }) => number);
  t.same(held(0, 1), [1], 'for the transcript: at least one');
  t.same(held(18, 1 << 20), [19, 20, 21]);
  pipeline.close();
  t.same(held(0, 1), []);
  t.equal(budget.usedBytes, 0);
});

test('the runtime’s error and end are withheld, and whatever comes after them', async (t) => {
  const { thread, pipeline, facts, read, view, until } = await createPipelineFixture(t.teardown, {
    closesAfterEnd: false,
  });
  const viewer = view();
  read();
  thread.pushFiles({ '/a': 'before' });
  thread.push('error', { code: 'model_failed', message: 'No.' });
  await until(() => seenBy(viewer).length === 1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  thread.push('on_llm_stream', token('after the error'));
  thread.pushFiles({ '/a': 'after the error' });
  thread.end();
  await until(() => facts.some(({ type }) => type === 'runtime.failed'));
  t.same(seenBy(viewer), [1]);
  t.equal(pipeline.fanOut.lastReleased(), 1);
  t.equal(pipeline.newestFiles.frame()?.number, 1, 'nor is a state that came after the error the newest');
  t.match(facts.at(-1), { error: { code: 'model_failed' }, ending: { errorNumber: 2, endNumber: 5 } });
});

test('a socket closed without an end, or left open after it, ends as the run did', async (t) => {
  const open = await createPipelineFixture(t.teardown, { closesAfterEnd: false });
  open.read();
  open.thread.push('on_llm_stream', token('a'));
  open.thread.end();
  await open.until(() => open.facts.at(-1)?.type === 'runtime.ended');
  await open.until(() => open.thread.readers === 0);
  const silent = await createPipelineFixture(t.teardown, {
    state: () => ({
      status: 200,
      body: { thread_id: 'run', status: 'completed', generated_files: { '/a': { content: ['x'] } } },
    }),
  });
  silent.read();
  silent.thread.push('on_llm_stream', token('a'));
  await silent.until(() => silent.thread.readers === 1 && silent.pipeline.reads() > 0);
  silent.thread.closeReaders(1000);
  await silent.until(() => silent.facts.at(-1)?.type === 'runtime.ended');
  t.match(silent.facts.at(-1), {
    ending: { endNumber: 0, state: { generated_files: { '/a': { content: ['x'] } } } },
  });
});

test('a lost socket goes on where it stopped, and viewers hear of it', async (t) => {
  const { thread, runtime, facts, read, view, until } = await createPipelineFixture(t.teardown);
  const viewer = view();
  read();
  for (let index = 0; index < 3; index++) thread.push('on_llm_stream', token('a'));
  await until(() => seenBy(viewer).length === 3);
  thread.cut();
  thread.push('on_llm_stream', token('while nobody listened'));
  await until(() => seenBy(viewer).includes(4));
  thread.end();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(seenBy(viewer), [1, 2, 3, 'on_reconnecting', 4]);
  t.match(runtime.requestsOf('stream')[1]?.url, /after=3&epoch=1/);
  t.same(
    facts.map(({ type }) => type),
    ['runtime.opened', 'runtime.lost', 'runtime.opened', 'runtime.ended'],
  );
});

test('a log that begins anew is told by on_reset, and its frames follow from 1', async (t) => {
  const { thread, pipeline, facts, read, view, until } = await createPipelineFixture(t.teardown);
  const viewer = view();
  read();
  thread.pushFiles({ '/a': 'one' });
  thread.push('on_llm_stream', token('a'));
  await until(() => seenBy(viewer).length === 2);
  thread.restart();
  thread.pushFiles({ '/a': 'two' });
  thread.end();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(seenBy(viewer), [1, 2, 'on_reconnecting', 'on_reset', 1]);
  t.match(viewer.received.at(-2), { data: { epoch: '1.2', reason: 'log_begun_anew' } });
  t.match(facts.filter(({ type }) => type === 'runtime.opened').at(-1), { epoch: '1.2', runtimeEpoch: 2 });
  t.match(pipeline.newestFiles.files(), { '/a': { content: ['two'] } });
  t.match(view(1, '1.1').received[0], { data: { recovery: 'reset', epoch: '1.2' } });
});

test('a runtime without numbers is counted, and a lost socket begins an epoch with the newest state', async (t) => {
  const { thread, pipeline, facts, read, view, until } = await createPipelineFixture(t.teardown, {
    numbered: false,
  });
  const viewer = view();
  read();
  thread.push('on_llm_stream', { raw_event: 'AIMessageChunk(…)' });
  thread.pushFiles({ '/a': 'x' });
  thread.push('on_state_update', { messages: [] });
  await until(() => seenBy(viewer).length === 3);
  t.match(viewer.received[1], {
    seq: 1,
    event_type: 'on_llm_stream',
    data: { raw_event: 'AIMessageChunk(…)' },
  });
  t.equal(pipeline.newestFiles.frame()?.number, 2);
  thread.cut();
  await until(() => seenBy(viewer).includes('on_reset'));
  await until(() => seenBy(viewer).length >= 9);
  thread.end();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(seenBy(viewer), [1, 2, 3, 'on_reconnecting', 'on_reset', 1, 2, 3, 4]);
  t.match(viewer.received[6], { seq: 1, event_type: 'on_state_update', data: { messages: [] } });
  t.equal(pipeline.fanOut.epoch(), '1.r1');
  t.equal(pipeline.newestFiles.frame()?.number, 3, 'the files stand where they came again');
  t.equal(pipeline.damaged(), true, 'what was sent between is known to nobody');
});

test('files of before a connection that cannot be resumed have no number in the new epoch', async (t) => {
  let connections = 0;
  const { pipeline, read, until } = await createPipelineFixture(t.teardown, {
    stream: (socket) => {
      if (connections++ > 0) return socket.send('{"event_type":"on_llm_stream","data":{}}');
      socket.send('{"event_type":"on_state_update","data":{"files":{"/a":{"content":["x"]}}}}');
      socket.send('{"event_type":"on_state_update","data":{"todos":[]}}', () => socket.terminate());
    },
  });
  read();
  await until(() => pipeline.fanOut.epoch() === '1.r1' && pipeline.fanOut.lastReleased() === 2);
  t.equal(pipeline.newestFiles.frame()?.number, 0);
  t.match(pipeline.newestFiles.files(), { '/a': { content: ['x'] } });
});

test('pretty-printed frames, other key orders and state updates without files pass untouched', async (t) => {
  const pretty = JSON.stringify({ seq: 1, event_type: 'on_llm_stream', data: { content: 'a' } }, null, 2);
  const odd = '{"event_type": "on_state_update", "data": {"todos": []}, "seq": 2, "extra": true}';
  const { facts, read, view, until, pipeline } = await createPipelineFixture(t.teardown, {
    stream: (socket) => {
      socket.send('{"event_type":"on_open","data":{"epoch":1,"first_seq":1,"last_seq":2}}');
      for (const text of [pretty, odd, '{ "seq": 3, "event_type": "end", "data": {} }']) socket.send(text);
      socket.close(1000);
    },
  });
  const viewer = view();
  read();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(
    viewer.received.slice(1),
    [pretty, odd].map((text) => JSON.parse(text) as unknown),
  );
  t.equal(pipeline.newestFiles.frame(), null);
  t.equal(pipeline.damaged(), false);
});

test('a frame that cannot be read is dropped, told as missing, and the files are to come from the state', async (t) => {
  const { facts, read, view, until, pipeline } = await createPipelineFixture(t.teardown, {
    stream: (socket) => {
      socket.send('{"event_type":"on_open","data":{"epoch":1,"first_seq":1,"last_seq":2}}');
      socket.send('{"seq":1,"event_type":"on_llm_stream","data":{}}');
      socket.send('{"seq":2,"event_type":"on_state_update","data":{"files":[]}}');
      socket.send('{"seq":3,"event_type":"on_llm_stream","data":{}}');
      socket.send(Buffer.from([0xff, 0xfe]), { binary: false });
      socket.send('{"seq":4,"event_type":"end","data":{}}');
    },
  });
  const viewer = view();
  read();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(seenBy(viewer), [1, 'on_skipped', 3]);
  t.equal(pipeline.damaged(), true);
});

test('a hole is filled by another connection, and one that stays is told', async (t) => {
  const frame = (seq: number) => `{"seq":${seq},"event_type":"on_llm_stream","data":{}}`;
  const { facts, read, view, until, runtime, pipeline } = await createPipelineFixture(t.teardown, {
    stream: (socket, _request, { after }) => {
      socket.send('{"event_type":"on_open","data":{"epoch":1,"first_seq":1,"last_seq":9}}');
      if (after === null) for (const seq of [1, 2, 5]) socket.send(frame(seq));
      else if (after === 2) for (const seq of [3, 4, 5, 8]) socket.send(frame(seq));
      else {
        socket.send(frame(8));
        socket.send('{"seq":9,"event_type":"end","data":{}}');
      }
    },
  });
  const viewer = view();
  read();
  await until(() => facts.at(-1)?.type === 'runtime.ended');
  t.same(seenBy(viewer), [1, 2, 3, 4, 5, 'on_skipped', 8]);
  t.equal(runtime.requestsOf('stream').length, 3);
  t.equal(pipeline.damaged(), true);
});

test('a runtime that leaves hole after hole does not set our pace', async (t) => {
  const { read, until, runtime, delays } = await createPipelineFixture(t.teardown, {
    stream: (socket, _request, { after }) => {
      const last = after ?? 0;
      socket.send('{"event_type":"on_open","data":{"epoch":1,"first_seq":1,"last_seq":999}}');
      for (const seq of [last + 1, last + 3])
        socket.send(`{"seq":${seq},"event_type":"on_llm_stream","data":{}}`);
    },
  });
  read();
  await until(() => runtime.requestsOf('stream').length >= 40);
  const opened = runtime.requestsOf('stream').length;
  t.ok(opened <= delays() + 2, `${opened} connections, all but the first two after a delay`);
});

test('an owner that becomes a reader of the same attempt repeats nothing to its viewers (rule 9)', async (t) => {
  const { thread, facts, read, view, until, runtime, stopReading, pipeline } = await createPipelineFixture(
    t.teardown,
  );
  const viewer = view();
  read();
  for (let index = 0; index < 3; index++) thread.push('on_llm_stream', token('a'));
  await until(() => seenBy(viewer).length === 3);
  stopReading();
  thread.push('on_llm_stream', token('b'));
  read();
  thread.fail('model_failed', 'No.');
  await until(() => facts.at(-1)?.type === 'runtime.failed');
  read();
  await until(() => facts.filter(({ type }) => type === 'runtime.failed').length === 2);
  t.same(seenBy(viewer), [1, 2, 3, 4]);
  t.match(runtime.requestsOf('stream')[1]?.url, /after=3&epoch=1/);
  t.match(runtime.requestsOf('stream')[2]?.url, /after=4&epoch=1/, 'the error and the end are heard again');
  t.equal(pipeline.known(), true);
});

test('another attempt begins an epoch of its own', async (t) => {
  const { thread, read, view, until, pipeline } = await createPipelineFixture(t.teardown);
  const viewer = view();
  read();
  thread.pushFiles({ '/a': 'x' });
  thread.fail('model_failed', 'No.');
  await until(() => thread.readers === 0 && seenBy(viewer).length === 1);
  pipeline.beginAttempt(2, {
    event_type: 'on_retry',
    data: { attempt: 2, max: 4, delay_ms: 0, epoch: '2.1' },
  });
  t.equal(pipeline.newestFiles.frame(), null);
  t.equal(pipeline.known(), false);
  t.equal(pipeline.send('x'), false);
  thread.restart();
  thread.push('on_llm_stream', token('again'));
  read(2);
  await until(() => seenBy(viewer).length >= 4);
  t.same(seenBy(viewer).slice(0, 4), [1, 'on_retry', 'on_reset', 1]);
  t.equal(pipeline.fanOut.epoch(), '2.2');
});

test('what a viewer sends reaches the run while its socket is open', async (t) => {
  const { thread, read, until, pipeline } = await createPipelineFixture(t.teardown);
  t.equal(pipeline.send('{"type":"cancel"}'), false);
  read();
  await until(() => thread.readers === 1);
  await until(() => pipeline.send('{"type":"cancel"}'));
  await until(() => thread.messages.length === 1);
  t.same(thread.messages, [{ type: 'cancel' }]);
});

test('a thread that the runtime does not know, and a frame over the limit, end the reading', async (t) => {
  const unknown = await createPipelineFixture(t.teardown, { upgrade: () => ({ status: 404 }) });
  unknown.read();
  await unknown.until(() => unknown.facts.at(-1)?.type === 'runtime.unknown');
  const large = await createPipelineFixture(t.teardown, {
    stream: (socket) => socket.send('x'.repeat((8 << 20) + 1)),
  });
  large.read();
  await large.until(() => large.facts.at(-1)?.type === 'runtime.oversized');
  t.equal(large.runtime.requestsOf('stream').length, 1);
});

test('a runtime that is away is waited for, and unsubscribing ends the waiting', async (t) => {
  const { thread, runtime, facts, read, view, until, stopReading } = await createPipelineFixture(t.teardown);
  const viewer = view();
  read();
  thread.push('on_llm_stream', token('a'));
  await until(() => seenBy(viewer).length === 1);
  await runtime.goAway();
  await until(() => facts.filter(({ type }) => type === 'runtime.lost').length >= 2);
  await runtime.comeBack();
  thread.push('on_llm_stream', token('b'));
  await until(() => seenBy(viewer).includes(2));
  stopReading();
  await until(() => thread.readers === 0);
  const connections = runtime.requestsOf('stream').length;
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(runtime.requestsOf('stream').length, connections);
});

test('a frame is read again from the window, else from the runtime’s log of that epoch, else not at all', async (t) => {
  const { pipeline, runtime, thread, facts, read, until } = await createPipelineFixture(t.teardown);
  read();
  thread.pushFiles({ '/a.md': 'two' });
  thread.push('on_state_update', { todos: [] });
  await until(() => pipeline.fanOut.lastReleased() === 2);
  const first = (await pipeline.readAgain(1))?.toString();
  t.match(first, /^{"seq":1,"event_type":"on_state_update","data":{"files"/);
  t.equal(runtime.requestsOf('stream').length, 1, 'the window had it');
  for (let count = 0; count < 10; count++) thread.push('on_llm_stream', { content: 'x'.repeat(1 << 20) });
  thread.end();
  await until(() => facts.some(({ type }) => type === 'runtime.ended'));
  t.equal((await pipeline.readAgain(1))?.toString(), first);
  t.match(runtime.requestsOf('stream').at(-1)?.url, /after=0&epoch=1$/);
  t.match((await pipeline.readAgain(2))?.toString(), /^{"seq":2,/, 'the newest state stays here');
  t.equal(runtime.requestsOf('stream').length, 2);
  t.equal(await pipeline.readAgain(99), null, 'beyond the end');
  thread.restart();
  thread.pushFiles({ '/a.md': 'another' });
  t.equal(await pipeline.readAgain(1), null, 'the same number of another epoch is another frame');
  await runtime.goAway();
  t.equal(await pipeline.readAgain(1), null, 'away');
});
