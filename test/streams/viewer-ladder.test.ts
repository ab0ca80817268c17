import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'tap';
import type { FanOut } from '../../src/streams/fan-out.js';
import { mergeTokens } from '../../src/streams/merge-tokens.js';
import type { OlderFrames } from '../../src/streams/older-frames.js';
import type { FakeViewer } from '../support/fake-viewer.js';
import { createFanOutFixture, lastFramesOf, subscribedFacts } from '../support/fan-out-fixture.js';
import { frameText } from '../support/frames.js';

const token = (seq: number, size = 1_000) => ({
  seq,
  data: { content: `${seq} ${'x'.repeat(size)}`, id: 'm' },
});

/** `1 2 3-9 skipped(10-20) 21:on_state_update …`, without `on_subscribed`. */
const shortOf = (viewer: FakeViewer) =>
  viewer.received
    .slice(1)
    .map(({ first_seq, seq, event_type, data }) => {
      if (event_type === 'on_skipped') return `skipped(${data.first_seq}-${data.last_seq})`;
      if (seq === undefined) return event_type;
      const number = first_seq === undefined ? String(seq) : `${first_seq}-${seq}`;
      return event_type === 'on_llm_stream' ? number : `${number}:${event_type}`;
    })
    .join(' ');

test('a viewer that lags gets tokens of one message merged, and is back on every frame when it has drained', async (t) => {
  const { fanOut, topics, clock, counts, steps, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  const [fast, slow] = [topics.join(), topics.join()];
  fanOut.join(fast, {}, subscribedFacts, false);
  slow.takesAll(false);
  const member = fanOut.join(slow, {}, subscribedFacts, false);
  for (let seq = 1; seq <= 11; seq++) release(token(seq));
  t.equal(shortOf(slow), '1 2 3 4 5 6 7 8 9 10', 'its socket is full');
  t.strictSame(steps, [], 'no step before it has lasted');
  clock.now += 200;
  for (let seq = 12; seq <= 15; seq++) release(token(seq));
  slow.takesAll(true);
  member.drained();
  release(token(16));
  t.equal(
    shortOf(fast),
    Array.from({ length: 16 }, (_, index) => index + 1).join(' '),
    'whoever keeps up, nothing',
  );
  t.equal(shortOf(slow), '1 2 3 4 5 6 7 8 9 10 11-15 16');
  const merged = slow.received.find(({ first_seq }) => first_seq === 11);
  t.match(merged?.data, {
    id: 'm',
    content: [11, 12, 13, 14, 15].map((seq) => token(seq).data.content).join(''),
  });
  t.strictSame(counts, { merged: 5, leftOut: 0 });
  t.strictSame(steps, ['merged', 'full']);
});

test('a viewer that lags further gets the newest state alone, told by on_skipped, and then every frame again', async (t) => {
  const { fanOut, topics, clock, counts, steps, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  const slow = topics.join();
  slow.takesAll(false);
  const member = fanOut.join(slow, {}, subscribedFacts, false);
  for (let seq = 1; seq <= 20; seq++) release(token(seq));
  release({ seq: 21, kind: 'on_state_update', data: {} }, token(22));
  release({ seq: 23, kind: 'on_state_update', data: {} }, token(24));
  clock.now += 1_500;
  release(token(25));
  slow.takesAll(true);
  member.drained();
  release(token(26));
  t.equal(shortOf(slow), '1 2 3 4 5 6 7 8 9 10 skipped(11-22) 23:on_state_update skipped(24-25) 26');
  t.strictSame(counts, { merged: 0, leftOut: 14 });
  t.strictSame(steps, ['states', 'full']);
});

test('a viewer that has only room for states still gets the end', async (t) => {
  const { fanOut, topics, clock, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  const slow = topics.join();
  slow.takesAll(false);
  const member = fanOut.join(slow, {}, subscribedFacts, false);
  for (let seq = 1; seq <= 30; seq++) release(token(seq));
  clock.now += 1_500;
  release({ seq: 31, kind: 'on_state_update', data: {} });
  fanOut.finish(lastFramesOf('1.1', [31, 'on_state_update'], [33, 'end']));
  slow.takesAll(true);
  member.drained();
  t.equal(shortOf(slow), '1 2 3 4 5 6 7 8 9 10 skipped(11-30) 31:on_state_update skipped(32-32) 33:end');
  t.equal(slow.closed?.code, 1000);
});

test('a viewer that takes a little and never enough is closed with its position', async (t) => {
  const { fanOut, topics, clock, steps, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  const drip = topics.join();
  drip.takesAll(false);
  fanOut.join(drip, {}, subscribedFacts, false);
  for (let seq = 1; seq <= 40; seq++) release(token(seq));
  for (let second = 0; second < 7 && drip.closed === null; second++) {
    clock.now += 1_000;
    drip.take(1_000);
    fanOut.sweep(clock.now);
  }
  t.match(drip.closed, { code: 4408, reason: JSON.stringify({ epoch: '1.1', seq: 10 }) });
  t.strictSame(steps, ['states', 'closed']);
});

test('tokens are merged up to 4 KB, and only those of one message without a hole between them', async (t) => {
  const frames = [
    { seq: 1, data: { content: 'a', id: 'm' } },
    { seq: 2, data: { content: 'b', id: 'm' } },
    { seq: 3, data: { content: 'c', id: 'n' } },
    { seq: 4, data: { content: '', id: 'n', tool_call_chunks: [{ index: 0, args: '{' }] } },
    { seq: 5, data: { content: '', id: 'n', tool_call_chunks: [{ index: 0, args: '}' }] } },
    { seq: 7, data: { content: 'd', id: 'n' } },
    { seq: 8, kind: 'on_tool_start', data: { content: 'e', id: 'n' } },
    { seq: 9, data: { raw_event: 'x' } },
    { seq: 10, data: { raw_event: 'y' } },
    { seq: 11, data: { content: 'x'.repeat(4_096), id: 'n' } },
    { seq: 12, data: { content: 'f', id: 'n' } },
  ].map(({ seq, kind, data }) => ({ number: seq, bytes: Buffer.from(frameText(seq, kind, data)) }));
  const next = (after: number) => frames.find(({ number }) => number > after) ?? null;
  const mergedAt = (seq: number) => {
    const first = next(seq - 1);
    const merged = first && mergeTokens(first, next);
    return merged && JSON.parse(merged.bytes.toString());
  };
  t.strictSame(mergedAt(1), {
    first_seq: 1,
    seq: 2,
    event_type: 'on_llm_stream',
    data: { content: 'ab', id: 'm' },
  });
  t.strictSame(mergedAt(3), {
    first_seq: 3,
    seq: 5,
    event_type: 'on_llm_stream',
    data: {
      content: 'c',
      id: 'n',
      tool_call_chunks: [
        { index: 0, args: '{' },
        { index: 0, args: '}' },
      ],
    },
  });
  for (const alone of [2, 7, 8, 9, 11]) t.equal(mergedAt(alone), null, `${alone}`);
});

/** The runtime's log of epoch 1.1: `count` tokens, at most five at a time. */
function logOf(count: number): OlderFrames & { reads: [string, number, number][] } {
  const reads: [string, number, number][] = [];
  return {
    reads,
    async read(epoch, after, upTo) {
      reads.push([epoch, after, upTo]);
      const numbers = Array.from({ length: count }, (_, index) => index + 1);
      const wanted = numbers.filter((number) => number > after && number <= upTo).slice(0, 5);
      return wanted.map((number) => ({
        number,
        bytes: Buffer.from(frameText(number, 'on_llm_stream', { content: 'o' })),
      }));
    },
  };
}

test('what has left the window is read again, and the position is exact', async (t) => {
  const older = logOf(100);
  const { fanOut, topics, resumes, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 100; seq++) release(token(seq));
  const missing = fanOut.missing({ after: 3, epoch: '1.1' });
  t.match(missing, { epoch: '1.1', after: 3 });
  t.equal(fanOut.missing({ after: 99, epoch: '1.1' }), null, 'that is in the window');
  t.equal(fanOut.missing({ after: 3, epoch: '2.1' })?.after, 0, 'a foreign one gets everything');
  if (missing === null) return;
  const viewer = topics.join();
  const frames = await older.read(missing.epoch, missing.after, missing.upTo);
  fanOut.join(viewer, { after: 3, epoch: '1.1' }, subscribedFacts, false, { ...missing, frames });
  while (viewer.received.length < 98) await turn();
  t.match(viewer.received[0]?.data, { recovery: 'exact', first_seq: 4, last_seq: 100 });
  t.strictSame(
    viewer.received.slice(1).map(({ seq }) => seq),
    Array.from({ length: 97 }, (_, index) => index + 4),
  );
  t.strictSame(resumes, ['exact']);
  release(token(101));
  t.equal(viewer.received.at(-1)?.seq, 101, 'and it is on the topic');
});

test('what can be had nowhere is told, and not asked for twice', async (t) => {
  const older = logOf(0);
  const { fanOut, topics, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 100; seq++) release(token(seq));
  const viewer = topics.join();
  fanOut.join(viewer, {}, subscribedFacts, false);
  await turn();
  t.match(viewer.received[0]?.data, { recovery: 'compacted' });
  t.match(viewer.received[1], { event_type: 'on_skipped', data: { first_seq: 1 } });
  t.equal(viewer.received.at(-1)?.seq, 100);
  t.equal(older.reads.length, 1);
});

test('a viewer that is behind when the thread ends gets from the transcript what lies between', async (t) => {
  const older = logOf(7);
  const { fanOut, topics, release } = createFanOutFixture({ older });
  const viewer = topics.join();
  fanOut.join(viewer, {}, subscribedFacts, false);
  release(token(1), token(2));
  fanOut.finish(lastFramesOf('1.1', [8, 'end']));
  await turn();
  await turn();
  t.equal(shortOf(viewer), '1 2 3 4 5 6 7 8:end');
  t.strictSame(older.reads, [['1.1', 2, 7]]);
});

/** As `logOf`; the n-th read, from 0, is answered when it is told to be. */
function heldLogOf(count: number, held: number) {
  const log = logOf(count);
  let answer = () => {};
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const older: OlderFrames = {
    async read(...wanted) {
      const frames = await log.read(...wanted);
      if (log.reads.length - 1 === held) await answered;
      return frames;
    },
  };
  return { older, reads: log.reads, answer };
}

const oneByOne = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index).join(' ');

/** As the entrance does it: the first piece is read again before the viewer joins. */
async function joinReadAgain(fanOut: FanOut, older: OlderFrames, viewer: FakeViewer, after: number) {
  const position = { after, epoch: '1.1' };
  const missing = fanOut.missing(position);
  if (missing === null) throw new Error('nothing has left the window');
  const frames = await older.read(missing.epoch, missing.after, missing.upTo);
  fanOut.join(viewer, position, subscribedFacts, false, { ...missing, frames });
}

/** Lets reads come back and be sent. */
const turns = async (count = 60) => {
  for (let each = 0; each < count; each++) await turn();
};

test('a trusted position ahead of a log that is replayed loses nothing by it', async (t) => {
  const { fanOut, topics, clock, steps, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  const viewer = topics.join();
  fanOut.join(viewer, { after: 50, epoch: '1.1' }, subscribedFacts, true);
  clock.now += 2_000;
  for (let seq = 1; seq <= 48; seq += 3) release(token(seq), token(seq + 1), token(seq + 2));
  clock.now += 2_000;
  release(token(49), token(50), token(51, 11_000), token(52), token(53));
  release(token(54));
  t.equal(shortOf(viewer), '51 52 53 54');
  t.strictSame(steps, []);
});

test('a viewer that waits for our reading of older frames is not taken for slow', async (t) => {
  const { older, reads, answer } = heldLogOf(100, 1);
  const { fanOut, topics, clock, steps, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 100; seq++) release(token(seq));
  const viewer = topics.join();
  await joinReadAgain(fanOut, older, viewer, 3);
  clock.now += 1_200;
  release({ seq: 101, kind: 'on_state_update', data: { files: 'f'.repeat(11_000) } });
  t.equal(shortOf(viewer), oneByOne(4, 8), 'the rest is still being read');
  answer();
  await turns();
  t.equal(shortOf(viewer), `${oneByOne(4, 100)} 101:on_state_update`);
  t.strictSame(steps, []);
  t.ok(reads.length > 2);
});

test('a known hole above a position is compacted, although what lies before it is read again', async (t) => {
  const older = logOf(19);
  const { fanOut, topics, resumes, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 19; seq++) release(token(seq));
  fanOut.skip(20, 20);
  for (let seq = 21; seq <= 70; seq++) release(token(seq));
  const viewer = topics.join();
  await joinReadAgain(fanOut, older, viewer, 10);
  await turns();
  t.match(viewer.received[0]?.data, { recovery: 'compacted', first_seq: 11, last_seq: 70 });
  t.strictSame(resumes, ['compacted']);
  t.match(shortOf(viewer), new RegExp(`^${oneByOne(11, 19)} skipped\\(20-`));
});

test('a read that comes back after everything has begun again is no answer, and there is one end', async (t) => {
  const { older, reads, answer } = heldLogOf(49, 0);
  const { fanOut, topics, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 100; seq++) release(token(seq));
  const viewer = topics.join();
  fanOut.join(viewer, { after: 10, epoch: '1.1' }, subscribedFacts, false);
  t.match(reads, [['1.1', 10]], 'is being read');
  // The owner's end has a number under which this replica has sent something else.
  fanOut.finish(lastFramesOf('1.1', [50, 'end']));
  answer();
  await turns();
  t.equal(shortOf(viewer), `on_reset ${oneByOne(1, 49)} 50:end`);
  t.equal(viewer.closed?.code, 1000);
});

test('what comes back of the attempt before is not sent in the next', async (t) => {
  const { older, answer } = heldLogOf(49, 0);
  const { fanOut, topics, release } = createFanOutFixture({ threadBytes: 64 * 1024, older });
  for (let seq = 1; seq <= 100; seq++) release(token(seq));
  const viewer = topics.join();
  fanOut.join(viewer, { after: 10, epoch: '1.1' }, subscribedFacts, false);
  const told = { attempt: 2, max: 4, delay_ms: 0, epoch: '2.1' };
  fanOut.beginEpoch('2.1', { event_type: 'on_retry', data: told });
  answer();
  await turns();
  release(token(1), token(2));
  t.equal(shortOf(viewer), 'on_retry 1 2');
});

test('a viewer that is still taking what was there before it came is not taken for slow', async (t) => {
  const { fanOut, topics, clock, steps, release } = createFanOutFixture({ threadBytes: 1 << 20 });
  for (let seq = 1; seq <= 30; seq++) release(token(seq));
  const viewer = topics.join();
  viewer.takesAll(false);
  const member = fanOut.join(viewer, {}, subscribedFacts, false);
  clock.now += 1_150;
  viewer.take();
  member.drained();
  for (let seq = 31; seq <= 42; seq++) release(token(seq));
  t.equal(shortOf(viewer), oneByOne(1, 20));
  clock.now += 50;
  viewer.takesAll(true);
  member.drained();
  t.equal(shortOf(viewer), oneByOne(1, 42));
  t.strictSame(steps, []);
});
