import t from 'tap';
import { wireFilesOf } from '../support/scripted-thread.js';
import { createHouse, numberedTexts } from './support/house.js';

const counted = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

t.test(
  'a runtime without numbers is counted, with or without on_open, closing after its end or not',
  async (t) => {
    for (const manner of [
      { numbered: false },
      { numbered: false, opens: true },
      { numbered: false, closesAfterEnd: false },
      { numbered: true, opens: false },
      { numbered: true, closesAfterEnd: false },
    ]) {
      const house = await createHouse(t, manner);
      const { proposalId, thread, watcher } = await house.running();
      thread.push('on_llm_stream', { content: 'a' });
      thread.push('on_tool_start', { name: 'write_file' });
      thread.pushFiles({ '/a.md': 'two' });
      thread.end();
      await watcher.closed;
      t.strictSame(watcher.numbers(), counted(4), JSON.stringify(manner));
      t.match(watcher.frames[0], { data: { epoch: '1.1' } });
      const { generated_files, status } = await house.proposal(proposalId);
      t.strictSame([status, generated_files], ['completed', wireFilesOf({ '/a.md': 'two' })]);
    }
  },
);

t.test('older frames are passed through untouched: raw_event, and state updates without files', async (t) => {
  const house = await createHouse(t, { numbered: false });
  const { proposalId, thread, watcher } = await house.running();
  const raw = { raw_event: "{'event': 'on_chat_model_stream'}" };
  thread.push('on_llm_stream', raw);
  thread.pushFiles({ '/a.md': 'two' });
  thread.push('on_state_update', { todos: [{ content: 'x', status: 'done' }] });
  thread.push('on_state_update', { messages: 3, note: 'the word "files" alone makes none' });
  thread.end();
  await watcher.closed;
  t.strictSame(watcher.frames[1]?.data, raw);
  t.strictSame(watcher.numbers(), counted(5));
  t.match(await house.proposal(proposalId), {
    status: 'completed',
    warnings: [],
    generated_files: wireFilesOf({ '/a.md': 'two' }),
  });
});

t.test('files that no state update has shown come from the state at the end', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  house.runtime.script.state = (request) => ({
    status: 200,
    body: {
      thread_id: request.threadId,
      status: 'completed',
      result: null,
      generated_files: wireFilesOf({ '/a.md': 'two' }),
    },
  });
  thread.push('on_state_update', { todos: [] });
  thread.end();
  await watcher.closed;
  t.match(await house.proposal(proposalId), {
    status: 'completed',
    generated_files: wireFilesOf({ '/a.md': 'two' }),
  });
});

t.test('pretty-printed frames and other orders of keys are read, and passed on as they are', async (t) => {
  const house = await createHouse(t);
  const files = wireFilesOf({ '/a.md': 'two' });
  const texts = [
    JSON.stringify({ data: { epoch: 1, first_seq: 1, last_seq: 0 }, event_type: 'on_open' }, null, 2),
    JSON.stringify({ data: { content: 'a' }, seq: 1, event_type: 'on_llm_stream' }),
    JSON.stringify({ event_type: 'on_llm_stream', data: { content: 'b' }, seq: 2 }, null, 2),
    ` ${JSON.stringify({ data: { files }, event_type: 'on_state_update', seq: 3 }, null, '\t')}\n`,
    JSON.stringify({ event_type: 'unknown_kind', seq: 4, data: null, more: [1] }),
    JSON.stringify({ data: {}, seq: 5, event_type: 'end' }, null, 1),
  ];
  house.runtime.script.stream = (socket) => {
    for (const text of texts) socket.send(text);
    socket.close(1000);
  };
  const { proposalId, watcher } = await house.running();
  await watcher.closed;
  t.strictSame(numberedTexts(watcher).slice(0, 4), texts.slice(1, 5));
  t.match(watcher.frames.at(-1), { seq: 5, event_type: 'end', data: { status: 'completed' } });
  t.match(await house.proposal(proposalId), { status: 'completed', warnings: [], generated_files: files });
});

t.test(
  'a socket that a runtime without numbers loses goes on in an epoch of its own, with the state of the run',
  async (t) => {
    const house = await createHouse(t, { numbered: false });
    const { proposalId, thread, watcher } = await house.running();
    thread.pushFiles({ '/a.md': 'one' });
    thread.push('on_llm_stream', { content: 'a' });
    await watcher.until('on_llm_stream');
    thread.cut();
    t.match(await watcher.until('on_reset'), { data: { epoch: /^1\.\w+$/ } });
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
    await watcher.closed;
    const after = watcher.frames.slice(watcher.kinds().indexOf('on_reset') + 1);
    t.strictSame(
      after.map(({ seq }) => seq),
      counted(after.length),
    );
    t.match(await house.proposal(proposalId), {
      status: 'completed',
      attempt: 1,
      generated_files: wireFilesOf({ '/a.md': 'two' }),
    });
  },
);

t.test('ten thousand frames and a 5 MB state update reach a healthy viewer without a loss', async (t) => {
  // Who is slow is told by the clock: on a busy machine this viewer would be, were there not room for all of it.
  const house = await createHouse(t, {}, { viewers: { budgetBytes: 16 << 20 } });
  const { proposalId, threadId, thread, watcher } = await house.running();
  const big = 'x'.repeat(5 * 1024 * 1024);
  const total = 10_000;
  for (let index = 0; index < total; index++) {
    if (index === total / 2) thread.pushFiles({ '/big.md': big });
    thread.push('on_llm_stream', { content: `word ${index}` });
    // As fast as it is taken, in pieces of a hundred.
    if (index % 100 === 99) await new Promise(setImmediate);
  }
  thread.end();
  await watcher.until('end');
  await watcher.closed;
  t.notOk(watcher.kinds().includes('on_skipped'));
  t.strictSame(watcher.numbers(), counted(total + 2));
  const { status, generated_files } = await house.proposal(proposalId);
  t.equal(status, 'completed');
  t.equal(generated_files['/big.md'].content[0].length, big.length);
  const late = await house.replica.watch('ann', threadId);
  await late.closed;
  const end = late.texts.at(-1);
  t.equal(end, watcher.texts.at(-1));
  const accounted = late.frames.reduce((sum, frame) => {
    if (frame.event_type === 'on_skipped') return sum + frame.data.last_seq - frame.data.first_seq + 1;
    return sum + (frame.seq === undefined ? 0 : 1);
  }, 0);
  t.equal(accounted, total + 2, 'a late viewer is told of every number');
});
