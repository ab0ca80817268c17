import fc from 'fast-check';
import { test } from 'tap';
import { createReplayWindow, createWindowBudget } from '../../src/streams/replay-window.js';
import { batchOf, frameText, numberedBatch } from '../support/frames.js';

const roomy = () => createWindowBudget({ processBytes: 1 << 30, threadBytes: 1 << 24 });
const tokens = (first: number, last: number, content = '') =>
  numberedBatch(
    Array.from({ length: last - first + 1 }, (_, index) => ({ seq: first + index, data: { content } })),
  );

test('frames come back byte for byte, in order, by the number before them', async (t) => {
  const window = createReplayWindow(roomy());
  for (let first = 1; first < 100; first += 7) window.append(tokens(first, first + 6), 0, 7);
  for (let after = 0; after < 105; after++) {
    const frame = window.next(after);
    t.equal(frame?.number, after + 1);
    t.equal(frame?.bytes.toString(), frameText(after + 1, 'on_llm_stream', { content: '' }));
  }
  t.equal(window.next(105), null);
});

test('the frames of one read are copied: the reader may use its memory again', async (t) => {
  const window = createReplayWindow(roomy());
  const batch = tokens(1, 3);
  window.append(batch, 0, 3);
  for (const frame of batch.frames) frame.fill(0);
  t.match(JSON.parse(String(window.next(1)?.bytes)), { seq: 2 });
});

test('what a window gives back is what the next one fills, up to a bound', async (t) => {
  const budget = roomy();
  const fill = () => {
    const window = createReplayWindow(budget);
    for (let first = 1; first < 500; first += 10)
      window.append(tokens(first, first + 9, 'x'.repeat(300)), 0, 10);
    for (let after = 0; after < 490; after++) {
      if (window.next(after)?.number !== after + 1) t.fail(`no frame behind ${after}`);
    }
    return window;
  };
  const first = fill();
  const held = first.bytes();
  first.close();
  t.equal(budget.spareBytes, held, 'segments of every size wait');
  const second = fill();
  t.equal(second.bytes(), held);
  t.equal(budget.spareBytes, 0, 'and all are used again');
  const many = Array.from({ length: 150 }, fill);
  for (const window of [second, ...many]) window.close();
  t.ok(budget.spareBytes > 15 * 1024 * 1024 && budget.spareBytes <= 16 * 1024 * 1024);
});

test('frames of one read that lie in different memory, or out of order in it, are kept too', async (t) => {
  const window = createReplayWindow(roomy());
  const batch = batchOf([frameText(2), frameText(1)]);
  batch.frames.reverse();
  batch.frames.push(Buffer.from(frameText(3)));
  batch.numbers.splice(0, 3, 1, 2, 3);
  batch.kinds.push(1);
  batch.length = 3;
  window.append(batch, 0, 3);
  for (let after = 0; after < 3; after++) {
    t.equal(window.next(after)?.bytes.toString(), frameText(after + 1));
  }
});

test('only a part of a batch is kept, and no frame without a number', async (t) => {
  const window = createReplayWindow(roomy());
  const batch = numberedBatch([{ seq: 1 }, { seq: 2 }, { seq: 0 }, { seq: 3 }, { seq: 4 }]);
  window.append(batch, 1, 4);
  t.equal(window.next(0)?.number, 2);
  t.equal(window.next(2)?.number, 3);
  t.match(JSON.parse(String(window.next(2)?.bytes)), { seq: 3 });
  t.equal(window.next(3), null);
});

test('the oldest frames go when the thread has its share, and the newest state survives them', async (t) => {
  const budget = createWindowBudget({ processBytes: 1 << 30, threadBytes: 256 * 1024 });
  const window = createReplayWindow(budget);
  window.append(numberedBatch([{ seq: 1, kind: 'on_state_update', data: { files: {} } }]), 0, 1);
  for (let first = 2; first < 2000; first += 10)
    window.append(tokens(first, first + 9, 'x'.repeat(400)), 0, 10);
  t.ok(window.bytes() <= 256 * 1024 + 64 * 1024, `${window.bytes()}`);
  t.ok((window.next(0)?.number ?? 0) > 1000);
  t.equal(window.next(2000)?.number, 2001, 'the newest are here');
  t.equal(window.newestState()?.number, 1);
  t.match(JSON.parse(String(window.newestState()?.bytes)), { seq: 1, event_type: 'on_state_update' });
});

test('many threads share the budget of the process, each with a least share', async (t) => {
  const budget = createWindowBudget({ processBytes: 4 * 1024 * 1024, threadBytes: 2 * 1024 * 1024 });
  const windows = Array.from({ length: 16 }, () => createReplayWindow(budget));
  for (const window of windows) {
    for (let first = 1; first < 2000; first += 10)
      window.append(tokens(first, first + 9, 'x'.repeat(400)), 0, 10);
  }
  t.ok(budget.usedBytes <= budget.processBytes, `${budget.usedBytes}`);
  const held = windows.reduce((sum, window) => sum + window.bytes(), 0);
  t.equal(budget.usedBytes, held);
  const crowd = createWindowBudget({ processBytes: 1024, threadBytes: 1024 * 1024 });
  const small = createReplayWindow(crowd);
  for (let seq = 1; seq <= 300; seq++) small.append(tokens(seq, seq, 'x'.repeat(100)), 0, 1);
  t.equal(small.next(0)?.number, 1, '64 KiB are always kept');
});

test('a frame larger than the share is kept until the next one', async (t) => {
  const window = createReplayWindow(createWindowBudget({ processBytes: 1 << 20, threadBytes: 100_000 }));
  window.append(tokens(1, 1), 0, 1);
  const state = numberedBatch([{ seq: 2, kind: 'on_state_update', data: { text: 'x'.repeat(5_000_000) } }]);
  window.append(state, 0, 1);
  t.equal(window.next(0)?.number, 2);
  window.append(tokens(3, 3), 0, 1);
  t.equal(window.next(0)?.number, 3);
  t.equal(window.newestState()?.number, 2);
  t.equal(window.newestState()?.bytes.length, state.frames[0]?.length);
});

test('clearing gives the memory back, closing the place too, once', async (t) => {
  const budget = roomy();
  const window = createReplayWindow(budget);
  const other = createReplayWindow(budget);
  window.append(tokens(1, 50), 0, 50);
  window.clear();
  t.equal(budget.usedBytes, 0);
  t.equal(window.next(0), null);
  t.equal(window.newestState(), null);
  window.append(tokens(1, 2), 0, 2);
  t.equal(window.next(0)?.number, 1, 'the next epoch begins');
  window.close();
  window.close();
  window.append(tokens(3, 4), 0, 2);
  t.equal(budget.usedBytes, 0);
  t.equal(budget.windows, 1);
  other.close();
  t.equal(budget.windows, 0);
});

test('whatever is kept, it is the newest frames without a gap, as in a plain list', async () => {
  const reads = fc.array(
    fc.record({
      gap: fc.nat(2),
      sizes: fc.array(fc.oneof(fc.nat(300), fc.integer({ min: 1000, max: 40_000 })), {
        minLength: 1,
        maxLength: 6,
      }),
      state: fc.boolean(),
      clear: fc.nat(9).map((one) => one === 0),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(reads, (given) => {
      const budget = createWindowBudget({ processBytes: 1 << 20, threadBytes: 128 * 1024 });
      const window = createReplayWindow(budget);
      let list: { seq: number; text: string }[] = [];
      let state = 0;
      let seq = 0;
      for (const { gap, sizes, state: isState, clear } of given) {
        if (clear) {
          window.clear();
          list = [];
          state = 0;
          seq = 0;
        }
        seq += gap;
        const kind = isState ? 'on_state_update' : 'on_llm_stream';
        const frames = sizes.map((size) => ({ seq: ++seq, kind, data: { text: 'x'.repeat(size) } }));
        window.append(numberedBatch(frames), 0, frames.length);
        for (const frame of frames)
          list.push({ seq: frame.seq, text: frameText(frame.seq, kind, frame.data) });
        if (isState) state = seq;
        if ((window.newestState()?.number ?? 0) !== state) return false;
        let index = list.findIndex((one) => one.seq === window.next(0)?.number);
        if (index < 0) return false;
        for (let after = 0; index < list.length; index++) {
          const frame = window.next(after);
          if (frame?.number !== list[index]?.seq || frame?.bytes.toString() !== list[index]?.text)
            return false;
          after = frame?.number ?? 0;
        }
        if (window.next(seq) !== null || budget.usedBytes !== window.bytes()) return false;
      }
      return true;
    }),
    { numRuns: 60 },
  );
});
