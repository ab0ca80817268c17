import { test } from 'tap';
import type { FanOut } from '../../src/streams/fan-out.js';
import type { FakeViewer } from '../support/fake-viewer.js';
import { createFanOutFixture, lastFramesOf, subscribedFacts } from '../support/fan-out-fixture.js';

const join = (fanOut: FanOut, viewer: FakeViewer, after?: number, epoch?: string, trusted = false) =>
  fanOut.join(
    viewer,
    { ...(after === undefined ? {} : { after }), ...(epoch === undefined ? {} : { epoch }) },
    subscribedFacts,
    trusted,
  );

/** `subscribed(1.1 exact 3-5) 3 4 5 skipped(6-7) reset(1.2) …` */
const shortOf = (viewer: FakeViewer) =>
  viewer.received
    .map(({ seq, event_type, data }) => {
      if (event_type === 'on_subscribed') {
        return `subscribed(${data.epoch} ${data.recovery} ${data.first_seq}-${data.last_seq})`;
      }
      if (event_type === 'on_skipped') return `skipped(${data.first_seq}-${data.last_seq})`;
      if (event_type === 'on_reset') return `reset(${data.epoch} ${data.reason})`;
      if (seq === undefined) return event_type;
      return event_type === 'on_llm_stream' ? String(seq) : `${seq}:${event_type}`;
    })
    .join(' ');

const three = [{ seq: 1 }, { seq: 2 }, { seq: 3 }];

test('a viewer without a position gets the epoch from number 1, then the run', async (t) => {
  const { fanOut, topics, release, resumes } = createFanOutFixture();
  const early = topics.join();
  join(fanOut, early);
  release(...three);
  const late = topics.join();
  join(fanOut, late);
  release({ seq: 4 });
  t.equal(shortOf(early), 'subscribed(1.1 exact 0-0) 1 2 3 4');
  t.equal(shortOf(late), 'subscribed(1.1 exact 1-3) 1 2 3 4');
  t.same(resumes, [], 'nothing was resumed');
  t.match(late.received[0]?.data, { ...subscribedFacts, trace_id: 'trace' });
});

test('a position is answered exactly, and one at the end with nothing', async (t) => {
  const { fanOut, topics, release, resumes } = createFanOutFixture();
  release(...three);
  const [behind, even] = [topics.join(), topics.join()];
  join(fanOut, behind, 1, '1.1');
  join(fanOut, even, 3);
  release({ seq: 4 });
  t.equal(shortOf(behind), 'subscribed(1.1 exact 2-3) 2 3 4');
  t.equal(shortOf(even), 'subscribed(1.1 exact 4-3) 4');
  t.same(resumes, ['exact', 'exact']);
});

test('a position in another epoch, or beyond what there is, is reset', async (t) => {
  const { fanOut, topics, release, resumes } = createFanOutFixture({ epoch: '1.2' });
  release(...three);
  const viewers = [topics.join(), topics.join(), topics.join()] as const;
  join(fanOut, viewers[0], 2, '1.1');
  join(fanOut, viewers[1], 2);
  join(fanOut, viewers[2], 9, '1.2');
  for (const viewer of viewers) t.equal(shortOf(viewer), 'subscribed(1.2 reset 1-3) 1 2 3');
  t.same(resumes, ['reset', 'reset', 'reset']);
});

test('what the window no longer has is told hole by hole, with the newest state between', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture({ threadBytes: 64 * 1024 });
  release({ seq: 1 }, { seq: 2, kind: 'on_state_update', data: {} }, { seq: 3 });
  for (let seq = 4; seq <= 200; seq++) release({ seq, data: { content: 'x'.repeat(1000) } });
  const viewer = topics.join();
  join(fanOut, viewer, 0, '1.1');
  t.match(
    shortOf(viewer),
    /^subscribed\(1\.1 compacted 2-200\) skipped\(1-1\) 2:on_state_update skipped\(3-\d+\) \d+ /,
  );
  const next = topics.join();
  join(fanOut, next, 1, '1.1');
  t.match(
    shortOf(next),
    /^subscribed\(1\.1 compacted 2-200\) 2:on_state_update skipped\(3-\d+\) /,
    'the state is there, what follows it is not',
  );
  const kept = topics.join();
  join(fanOut, kept, 199);
  t.equal(shortOf(kept), 'subscribed(1.1 exact 200-200) 200');
});

test('numbers that will never come are told to those that are there and to those that come', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const early = topics.join();
  join(fanOut, early);
  release({ seq: 1 });
  fanOut.skip(2, 4);
  const between = topics.join();
  join(fanOut, between, 1);
  release({ seq: 5 });
  const late = topics.join();
  join(fanOut, late);
  const behind = topics.join();
  join(fanOut, behind, 4);
  t.equal(shortOf(early), 'subscribed(1.1 exact 0-0) 1 skipped(2-4) 5');
  t.equal(shortOf(between), 'subscribed(1.1 compacted 2-4) skipped(2-4) 5');
  t.equal(shortOf(late), 'subscribed(1.1 compacted 1-5) 1 skipped(2-4) 5');
  t.equal(shortOf(behind), 'subscribed(1.1 exact 5-5) 5');
});

test('another epoch is told to everybody, and frames follow from 1', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const live = topics.join();
  const slow = topics.join();
  join(fanOut, live);
  slow.takesAll(false);
  join(fanOut, slow);
  release({ seq: 1, data: { content: 'x'.repeat(20_000) } }, { seq: 2 });
  release({ seq: 3 });
  t.equal(shortOf(slow), 'subscribed(1.1 exact 0-0) 1 2', 'over budget: off the topic');
  fanOut.beginEpoch('1.2', { event_type: 'on_reset', data: { epoch: '1.2', reason: 'log_begun_anew' } });
  release({ seq: 1 });
  slow.takesAll(true);
  release({ seq: 2 });
  t.equal(shortOf(live), 'subscribed(1.1 exact 0-0) 1 2 3 reset(1.2 log_begun_anew) 1 2');
  t.equal(shortOf(slow), 'subscribed(1.1 exact 0-0) 1 2 reset(1.2 log_begun_anew) 1 2');
  t.equal(fanOut.epoch(), '1.2');
});

test('own frames reach everybody', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const live = topics.join();
  const ahead = topics.join();
  join(fanOut, live);
  join(fanOut, ahead, 5, '1.1', true);
  release({ seq: 1 });
  fanOut.announce({ event_type: 'on_reconnecting', data: {} });
  t.equal(shortOf(live), 'subscribed(1.1 exact 0-0) 1 on_reconnecting');
  t.equal(shortOf(ahead), 'subscribed(1.1 exact 6-5) on_reconnecting');
});

test('a position that was taken on trust waits for the frames, or for the word that it means nothing', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const [right, wrong] = [topics.join(), topics.join()];
  join(fanOut, right, 2, '1.1', true);
  join(fanOut, wrong, 9, '1.1', true);
  fanOut.resetStrays(3);
  release(...three, { seq: 4 });
  t.equal(shortOf(right), 'subscribed(1.1 exact 3-2) 3 4');
  t.equal(shortOf(wrong), 'subscribed(1.1 exact 10-9) reset(1.1 position_unknown) 1 2 3 4');
});

test('the end comes after what a viewer lacks, and then the socket closes', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const [live, slow] = [topics.join(), topics.join()];
  join(fanOut, live);
  slow.takesAll(false);
  const member = join(fanOut, slow);
  release({ seq: 1, data: { content: 'x'.repeat(20_000) } });
  release({ seq: 2 }, { seq: 3, kind: 'on_state_update', data: {} });
  fanOut.finish(lastFramesOf('1.1', [3, 'on_state_update'], [6, 'end']));
  t.equal(shortOf(live), 'subscribed(1.1 exact 0-0) 1 2 3:on_state_update skipped(4-5) 6:end');
  t.same(live.closed, { code: 1000, reason: 'done' });
  t.equal(slow.closed, null);
  slow.takesAll(true);
  member.drained();
  t.equal(shortOf(slow), 'subscribed(1.1 exact 0-0) 1 2 3:on_state_update skipped(4-5) 6:end');
  t.equal(slow.closed?.code, 1000);
  t.equal(fanOut.size(), 0);
  const late = topics.join();
  join(fanOut, late, 3);
  t.equal(shortOf(late), 'subscribed(1.1 compacted 6-6) skipped(4-5) 6:end');
  const done = topics.join();
  join(fanOut, done, 6);
  t.equal(shortOf(done), 'subscribed(1.1 exact 7-6)');
  t.equal(done.closed?.code, 1000);
});

test('a finished thread that is only known from its row is compacted to its last frames', async (t) => {
  const { fanOut, topics } = createFanOutFixture({ epoch: '1.3' });
  fanOut.finish(lastFramesOf('1.3', [40, 'on_state_update'], [51, 'error'], [52, 'end']));
  const cases: [number | undefined, string][] = [
    [
      undefined,
      'subscribed(1.3 compacted 40-52) skipped(1-39) 40:on_state_update skipped(41-50) 51:error 52:end',
    ],
    [39, 'subscribed(1.3 compacted 40-52) 40:on_state_update skipped(41-50) 51:error 52:end'],
    [50, 'subscribed(1.3 exact 51-52) 51:error 52:end'],
    [52, 'subscribed(1.3 exact 53-52)'],
    [53, 'subscribed(1.3 reset 40-52) skipped(1-39) 40:on_state_update skipped(41-50) 51:error 52:end'],
  ];
  for (const [after, expected] of cases) {
    const viewer = topics.join();
    join(fanOut, viewer, after, '1.3');
    t.equal(shortOf(viewer), expected);
    t.equal(viewer.closed?.code, 1000);
  }
});

test('a run that we closed ends in an epoch of its own, for those that are there and those that come', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const [live, slow] = [topics.join(), topics.join()];
  join(fanOut, live);
  slow.takesAll(false);
  const member = join(fanOut, slow);
  release({ seq: 1, data: { content: 'x'.repeat(20_000) } });
  release({ seq: 2 });
  fanOut.finish(lastFramesOf('1.closed', [1, 'on_state_update'], [2, 'error'], [3, 'end']));
  const ending = 'reset(1.closed run_closed) 1:on_state_update 2:error 3:end';
  t.equal(shortOf(live), `subscribed(1.1 exact 0-0) 1 2 ${ending}`);
  slow.takesAll(true);
  member.drained();
  t.equal(shortOf(slow), `subscribed(1.1 exact 0-0) 1 2 ${ending}`, 'first what it lacks');
  const cases: [number | undefined, string | undefined, string][] = [
    [undefined, undefined, 'subscribed(1.closed exact 1-3) 1:on_state_update 2:error 3:end'],
    [2, '1.1', 'subscribed(1.closed reset 1-3) 1:on_state_update 2:error 3:end'],
    [1, '1.closed', 'subscribed(1.closed exact 2-3) 2:error 3:end'],
    [3, '1.closed', 'subscribed(1.closed exact 4-3)'],
  ];
  for (const [after, epoch, expected] of cases) {
    const viewer = topics.join();
    join(fanOut, viewer, after, epoch);
    t.equal(shortOf(viewer), expected);
    t.equal(viewer.closed?.code, 1000);
  }
});

test('a viewer beyond the end is told, and gets the end', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const viewer = topics.join();
  join(fanOut, viewer, 9, '1.1', true);
  release({ seq: 1 });
  fanOut.finish(lastFramesOf('1.1', [2, 'end']));
  t.equal(shortOf(viewer), 'subscribed(1.1 exact 10-9) reset(1.1 position_unknown) 1 2:end');
  t.equal(viewer.closed?.code, 1000);
});

test('an end under a number that was sent already begins again: everybody gets exactly one end', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const viewer = topics.join();
  join(fanOut, viewer);
  release(...three);
  fanOut.finish(lastFramesOf('1.1', [1, 'on_state_update'], [3, 'end']));
  t.equal(
    shortOf(viewer),
    'subscribed(1.1 exact 0-0) 1 2 3 reset(1.1 end_contradicts) 1:on_state_update skipped(2-2) 3:end',
  );
});

test('a state of 5 MB to a healthy viewer loses nothing of what comes with it', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture({ budgetBytes: 1 << 20, threadBytes: 8 << 20 });
  const viewer = topics.join({ maxBackpressure: 6 << 20 });
  viewer.takesAll(false);
  const member = join(fanOut, viewer);
  release({ seq: 1, kind: 'on_state_update', data: { text: 'x'.repeat(5 << 20) } }, { seq: 2 });
  for (let seq = 3; seq <= 50; seq++) release({ seq });
  t.equal(viewer.received.length, 3, 'off the topic while it waits');
  for (let turn = 0; turn < 6; turn++) {
    viewer.take(1 << 20);
    member.drained();
  }
  release({ seq: 51 });
  t.same(
    viewer.received.slice(1).map(({ seq }) => seq),
    Array.from({ length: 51 }, (_, index) => index + 1),
  );
  t.equal(viewer.dropped, 0);
});

test('a viewer that takes nothing is closed with its position, one that takes a little is not', async (t) => {
  const { fanOut, topics, release, clock, slowCloses } = createFanOutFixture();
  const [stuck, slow] = [topics.join(), topics.join()];
  for (const viewer of [stuck, slow]) {
    viewer.takesAll(false);
    join(fanOut, viewer);
  }
  release({ seq: 1, data: { content: 'x'.repeat(50_000) } }, { seq: 2 });
  for (let seq = 3; seq < 10; seq++) {
    clock.now += 400;
    slow.take(3000);
    release({ seq });
    fanOut.sweep(clock.now);
  }
  t.same(stuck.closed, { code: 4408, reason: JSON.stringify({ epoch: '1.1', seq: 2 }) });
  t.equal(slow.closed, null);
  t.equal(slowCloses(), 1);
  t.equal(fanOut.size(), 1);
  slow.take();
  fanOut.sweep(clock.now);
  t.match(shortOf(slow), / 9$/, 'a sweep serves a viewer whose drain was not heard');
  const back = topics.join();
  join(fanOut, back, 2, '1.1');
  t.equal(shortOf(back), 'subscribed(1.1 exact 3-9) 3 4 5 6 7 8 9');
});

test('a message that the socket drops closes it with the position that it has', async (t) => {
  const { fanOut, topics, release, slowCloses } = createFanOutFixture({ budgetBytes: 5_000 });
  release(
    { seq: 1, data: { content: 'x'.repeat(3_000) } },
    { seq: 2, data: { content: 'x'.repeat(3_000) } },
    { seq: 3 },
  );
  const viewer = topics.join({ maxBackpressure: 2_000 });
  viewer.takesAll(false);
  join(fanOut, viewer);
  t.same(viewer.closed, { code: 4408, reason: JSON.stringify({ epoch: '1.1', seq: 1 }) });
  t.equal(slowCloses(), 1);
  const full = topics.join({ maxBackpressure: -1 });
  join(fanOut, full);
  t.equal(full.closed?.code, 4408, 'not even on_subscribed');
});

test('a viewer that drops the word of a new epoch comes back for all of it', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture({ budgetBytes: 1_000 });
  const viewer = topics.join({ maxBackpressure: 2_000 });
  join(fanOut, viewer);
  viewer.takesAll(false);
  release({ seq: 1, data: { content: 'x'.repeat(3_000) } });
  release({ seq: 2 });
  fanOut.beginEpoch('1.2', { event_type: 'on_reset', data: { epoch: '1.2', reason: 'x' } });
  t.same(viewer.closed, { code: 4408, reason: JSON.stringify({ epoch: '1.2', seq: 0 }) });
});

test('a viewer that leaves is forgotten, and the rest is closed together', async (t) => {
  const { fanOut, topics, release } = createFanOutFixture();
  const [gone, stays] = [topics.join(), topics.join()];
  const member = join(fanOut, gone);
  join(fanOut, stays);
  member.leave();
  member.leave();
  member.drained();
  release({ seq: 1 });
  t.equal(gone.received.length, 1);
  t.same(
    [...fanOut.viewers()].map(({ id }) => id),
    [stays.id],
  );
  fanOut.closeAll(1012, 'restarting');
  t.same(stays.closed, { code: 1012, reason: 'restarting' });
  t.equal(fanOut.size(), 0);
});
