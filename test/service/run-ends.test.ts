import t, { type Test } from 'tap';
import type { Watcher } from '../support/replica.js';
import { wireFilesOf } from '../support/scripted-thread.js';
import { createHouse, type House, numberedTexts } from './support/house.js';

const two = wireFilesOf({ '/a.md': 'two' });
const stateFrame = (seq: number, files: unknown = two) =>
  JSON.stringify({ seq, event_type: 'on_state_update', data: { files } });

/** What a viewer that comes later gets is what the first one had, from the newest state on. */
async function sameForALateViewer(t: Test, house: House, threadId: string, watcher: Watcher, last: number) {
  await watcher.closed;
  const late = await house.replica.watch('ann', threadId);
  t.equal((await late.closed).code, 1000);
  t.strictSame(numberedTexts(late).slice(-last), numberedTexts(watcher).slice(-last));
}

/** A runtime that speaks by itself on the socket, and a state that may differ. */
async function speaking(
  t: Test,
  frames: readonly (string | Buffer)[],
  state?: Record<string, unknown>,
  close: number | null = 1000,
) {
  const house = await createHouse(t);
  let told = false;
  house.runtime.script.stream = (socket) => {
    for (const frame of frames) socket.send(frame, { binary: false });
    if (close !== null) socket.close(close);
    told = true;
  };
  house.runtime.script.state = (request) =>
    told && state !== undefined
      ? { status: 200, body: { thread_id: request.threadId, result: null, generated_files: null, ...state } }
      : undefined;
  const running = await house.running();
  return { house, ...running };
}

const open = JSON.stringify({ event_type: 'on_open', data: { epoch: 1, first_seq: 1, last_seq: 0 } });
const token = (seq: number) => JSON.stringify({ seq, event_type: 'on_llm_stream', data: { content: 'x' } });
const end = (seq?: number) =>
  JSON.stringify({ ...(seq === undefined ? {} : { seq }), event_type: 'end', data: {} });
const error = (data: unknown, seq?: number) =>
  JSON.stringify({ ...(seq === undefined ? {} : { seq }), event_type: 'error', data });

t.test(
  'files of the last state update before the end are the result, and end takes the number of the runtime’s',
  async (t) => {
    const frames = [open, stateFrame(1, wireFilesOf({ '/a.md': 'one' })), stateFrame(2), token(3), end(4)];
    const { house, proposalId, threadId, watcher } = await speaking(t, frames);
    await sameForALateViewer(t, house, threadId, watcher, 2);
    t.match(watcher.frames.at(-1), { seq: 4, event_type: 'end' });
    t.match(await house.proposal(proposalId), {
      status: 'completed',
      generated_files: { '/a.md': { content: ['two'] } },
    });
  },
);

t.test('a run whose end only the state tells completes in its epoch with the next number', async (t) => {
  const state = { status: 'completed', generated_files: two };
  const { house, proposalId, threadId, watcher } = await speaking(t, [open, token(1)], state);
  await sameForALateViewer(t, house, threadId, watcher, 1);
  t.match(watcher.frames.at(-1), { seq: 2, event_type: 'end', data: { status: 'completed' } });
  t.match(await house.proposal(proposalId), { status: 'completed', generated_files: two });
});

t.test('after a frame that cannot be read the files come from the state, with a warning', async (t) => {
  const state = { status: 'completed', generated_files: wireFilesOf({ '/a.md': 'true' }) };
  const { house, proposalId, watcher } = await speaking(t, [open, stateFrame(1), '{"seq":2,', end(3)], state);
  await watcher.closed;
  t.match(await house.proposal(proposalId), {
    status: 'completed',
    generated_files: { '/a.md': { content: ['true'] } },
    warnings: [{ code: 'invalid_frame' }],
  });
  t.match(watcher.frames.at(-1), { seq: 3, data: { warnings: [{ code: 'invalid_frame' }] } });
});

t.test('after a hole that is never filled the files come from the state', async (t) => {
  const state = { status: 'completed', generated_files: wireFilesOf({ '/a.md': 'true' }) };
  const { house, proposalId, watcher } = await speaking(
    t,
    [open, stateFrame(1), stateFrame(4), end(5)],
    state,
  );
  await watcher.closed;
  t.match(
    watcher.frames.find((frame) => frame.event_type === 'on_skipped'),
    { data: { first_seq: 2, last_seq: 3 } },
  );
  t.match(await house.proposal(proposalId), { generated_files: { '/a.md': { content: ['true'] } } });
});

t.test('a damaged run whose state has no files fails as invalid_frame, and is not tried again', async (t) => {
  const { house, proposalId, threadId, watcher } = await speaking(t, [open, '[]', end(2)], {
    status: 'completed',
  });
  await sameForALateViewer(t, house, threadId, watcher, 2);
  t.match(watcher.frames.slice(-2), [
    { seq: 2, event_type: 'error', data: { code: 'invalid_frame', retryable: false } },
    { seq: 3, event_type: 'end', data: { status: 'failed' } },
  ]);
  t.match(await house.proposal(proposalId), { status: 'failed', attempt: 1 });
});

t.test('a damaged run of which the state says failed has failed so', async (t) => {
  const state = { status: 'failed', error: { code: 'model_error', message: 'No.', retryable: false } };
  const { house, proposalId, watcher } = await speaking(t, [open, '{}', end(2)], state);
  await watcher.closed;
  t.match(await house.proposal(proposalId), {
    status: 'failed',
    error: { code: 'model_error', message: 'No.' },
  });
});

t.test('a state that is away, and then says running, is asked until it tells', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  let asked = 0;
  house.runtime.script.state = (request) => {
    asked++;
    if (asked <= 3) return { status: 500 };
    const status = asked === 4 ? 'running' : 'completed';
    return { status: 200, body: { thread_id: request.threadId, status, result: null, generated_files: two } };
  };
  thread.push('on_llm_stream', { content: 'x' });
  thread.end();
  await watcher.closed;
  t.ok(asked >= 5);
  t.match(await house.proposal(proposalId), { status: 'completed', generated_files: two });
});

t.test('a run without files, or with none that is accepted, is completed_without_files', async (t) => {
  const refused = {
    'no-slash.md': { content: ['x'] },
    '/b.md': { content: 'no lines' },
    '/c.md': { content: ['\u0000'] },
  };
  for (const frames of [
    [open, token(1), end(2)],
    [open, stateFrame(1, {}), end(2)],
    [open, stateFrame(1, refused), end(2)],
  ]) {
    const { house, proposalId, threadId, watcher } = await speaking(t, frames, { status: 'completed' });
    await sameForALateViewer(t, house, threadId, watcher, 2);
    t.match(watcher.frames.slice(-2), [
      { seq: 2, event_type: 'error', data: { code: 'completed_without_files', retryable: false } },
      { seq: 3, event_type: 'end' },
    ]);
    t.match(await house.proposal(proposalId), {
      status: 'failed',
      error: { code: 'completed_without_files' },
    });
  }
});

t.test('the runtime’s error is relayed with its number, or takes the next where it has none', async (t) => {
  const fault = { code: 'model_error', message: 'No.', retryable: false, detail: [1] };
  const cases = [
    { frames: [open, stateFrame(1), error(fault, 2), end(3)], numbers: [1, 2, 3] },
    { frames: [open, stateFrame(1), error(fault), end(2)], numbers: [1, 2, 3] },
    { frames: [open, stateFrame(1), error(fault, 2)], numbers: [1, 2, 3] },
    {
      frames: [stateFrame(1), error(fault), end()].map((text) => text.replace(/"seq":\d+,/, '')),
      numbers: [1, 2, 3],
    },
  ];
  for (const { frames, numbers } of cases) {
    const { house, proposalId, threadId, watcher } = await speaking(t, frames, {
      status: 'failed',
      error: fault,
    });
    await sameForALateViewer(t, house, threadId, watcher, 3);
    t.strictSame(watcher.numbers(), numbers);
    t.strictSame(watcher.frames.at(-2)?.data, fault);
    t.notOk(watcher.kinds().includes('on_reset'), 'the epoch goes on');
    t.match(await house.proposal(proposalId), {
      status: 'failed',
      error: { code: 'model_error', retryable: false },
    });
  }
});

t.test('an error that says nothing counts as worth another attempt', async (t) => {
  const house = await createHouse(t);
  const { thread, watcher } = await house.running();
  thread.push('error', {});
  thread.end();
  t.match(await watcher.until('on_retry'), { data: { attempt: 2 } });
});

t.test(
  'a run that the runtime did not end gets an epoch of ours, with its newest state or without',
  async (t) => {
    for (const withState of [true, false]) {
      const house = await createHouse(t, {}, { runtime: { frameBytes: 64 * 1024 } });
      const { proposalId, threadId, thread, watcher } = await house.running();
      if (withState) thread.pushFiles({ '/a.md': 'half' });
      thread.push('on_llm_stream', { content: 'x' });
      await watcher.until('on_llm_stream');
      thread.push('on_llm_stream', { content: 'x'.repeat(100_000) });
      await sameForALateViewer(t, house, threadId, watcher, withState ? 3 : 2);
      t.match(await watcher.until('on_reset'), { data: { epoch: '1.closed' } });
      const kinds = ['error', 'end'];
      t.strictSame(
        watcher.kinds().slice(-3),
        withState ? ['on_state_update', ...kinds] : ['on_reset', ...kinds],
      );
      t.strictSame(watcher.numbers().slice(-2), withState ? [2, 3] : [1, 2]);
      t.match(await house.proposal(proposalId), { status: 'failed', error: { code: 'oversized' } });
      const back = await house.replica.watch('ann', threadId, { after: 1, epoch: '1.closed' });
      await back.closed;
      t.match(back.frames[0], { data: { recovery: 'exact', epoch: '1.closed' } });
      t.strictSame(back.numbers(), withState ? [2, 3] : [2]);
    }
  },
);
