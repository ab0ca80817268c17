import { Subject } from 'rxjs';
import { test } from 'tap';
import { FrameKind } from '../../src/streams/frame-batch.js';
import { createNumbering } from '../../src/streams/number-frames.js';
import type { SocketSignal } from '../../src/streams/stream-signals.js';
import { batchOf, frameText } from '../support/frames.js';

const opening = (epoch: number, first: number, last: number) =>
  frameText(0, 'on_open', { epoch, first_seq: first, last_seq: last });

/** A numbering, and what it says in short: `1 2 3`, `skip 4-5`, `epoch 1.2!` (`!` = numbers begin anew). */
function createReading(newestState: Buffer | null = null, first = true) {
  let connections = 0;
  const numbering = createNumbering({
    attempt: 1,
    first,
    randomEpoch: () => `r${connections}`,
    newestState: () => newestState,
  });
  const frames: { number: number; text: string }[] = [];
  return {
    numbering,
    frames,
    /** One connection that brings these reads; a read is a list of texts. */
    connection(...reads: (string | Buffer)[][]): string {
      connections++;
      const said: string[] = [];
      const socket = new Subject<SocketSignal>();
      numbering.connect();
      const reading = numbering.number(socket).subscribe((signal) => {
        if (signal.type === 'frames') {
          for (let index = 0; index < signal.batch.length; index++) {
            const text = (signal.batch.frames[index] as Buffer).toString();
            const number = signal.batch.numbers[index] ?? 0;
            frames.push({ number, text });
            said.push(`${number}${signal.batch.kinds[index] === FrameKind.end ? 'end' : ''}`);
          }
        } else if (signal.type === 'skipped') said.push(`skip ${signal.first}-${signal.last}`);
        else if (signal.type === 'epoch') said.push(`epoch ${signal.epoch}${signal.reset ? '!' : ''}`);
        else said.push(signal.type);
      });
      for (const texts of reads) socket.next({ type: 'frames', batch: batchOf(texts) });
      reading.unsubscribe();
      return said.join(' ');
    },
  };
}

const texts = (...numbers: number[]) => numbers.map((number) => frameText(number));

test('numbers go on over reads and connections, and a number already seen is dropped', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(numbering.position(), null, 'the first connection reads from the start');
  t.equal(connection([opening(1, 1, 3), ...texts(1, 2)], texts(3)), 'epoch 1.1 1 2 3');
  t.same(numbering.position(), { after: 3, epoch: 1 });
  t.equal(connection([opening(1, 1, 5), ...texts(2, 3, 4, 4, 5)]), 'epoch 1.1 4 5');
  t.equal(numbering.damaged(), false);
});

test('a hole closes the connection, and the next one fills it', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(connection([opening(1, 1, 9), ...texts(1, 2, 5, 6)], texts(7)), 'epoch 1.1 1 2 hole');
  t.same(numbering.position(), { after: 2, epoch: 1 });
  t.equal(connection([opening(1, 1, 9), ...texts(3, 4, 5, 6)]), 'epoch 1.1 3 4 5 6');
  t.equal(numbering.damaged(), false);
});

test('the same hole again is told, and what follows goes on', async (t) => {
  const { connection, numbering } = createReading();
  connection([opening(1, 1, 9), ...texts(1, 2, 5)]);
  t.equal(connection([opening(1, 1, 9), ...texts(5, 6)]), 'epoch 1.1 skip 3-4 5 6');
  t.equal(numbering.damaged(), true);
  t.equal(
    connection([opening(1, 1, 9), ...texts(7, 9)]),
    'epoch 1.1 7 hole',
    'another hole is another matter',
  );
});

test('a hole that has grown, or was filled in part, is not asked for again', async (t) => {
  const grown = createReading();
  grown.connection([opening(1, 1, 9), ...texts(1, 5)]);
  t.equal(grown.connection([opening(1, 1, 20), ...texts(12)]), 'epoch 1.1 skip 2-11 12');
  const part = createReading();
  part.connection([opening(1, 1, 9), ...texts(1, 5)]);
  t.equal(part.connection([opening(1, 1, 9), ...texts(2, 5)]), 'epoch 1.1 2 skip 3-4 5');
  const earlier = createReading();
  earlier.connection([opening(1, 1, 9), ...texts(1, 9)]);
  t.equal(earlier.connection([opening(1, 1, 9), ...texts(2, 5)]), 'epoch 1.1 2 skip 3-4 5');
});

test('an unreadable frame explains a hole of its size, and only the one that it leaves', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(
    connection([opening(1, 1, 9), ...texts(1), '{broken', ...texts(3)]),
    'epoch 1.1 1 unreadable skip 2-2 3',
  );
  t.equal(numbering.damaged(), true);
  t.equal(
    connection([opening(1, 1, 9), ...texts(4), '{', '{', ...texts(6, 7, 9)]),
    'epoch 1.1 4 unreadable unreadable skip 5-5 6 7 hole',
  );
  const noise = createReading();
  t.equal(
    noise.connection([opening(1, 1, 9), ...texts(1), 'noise', ...texts(2, 4)]),
    'epoch 1.1 1 unreadable 2 hole',
  );
});

test('a number in the past of an unreadable frame explains nothing', async (t) => {
  const { connection } = createReading();
  t.equal(connection([opening(1, 1, 9), '{', ...texts(1, 3)]), 'epoch 1.1 unreadable 1 hole');
});

test('another epoch begins from 1, with what the runtime says first', async (t) => {
  const { connection, numbering } = createReading();
  connection([opening(1, 1, 2), ...texts(1, 2)]);
  t.equal(connection([opening(2, 1, 1), ...texts(1, 2)]), 'epoch 1.2! 1 2');
  t.same(numbering.position(), { after: 2, epoch: 2 });
  t.equal(numbering.epoch(), '1.2');
  const first = createReading();
  t.equal(
    first.connection([opening(4, 1, 1), ...texts(1)]),
    'epoch 1.4 1',
    'the first epoch that is heard resets nothing',
  );
});

test('what a log no longer has is told without asking again', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(connection([opening(1, 4, 5), ...texts(4, 5)]), 'epoch 1.1 skip 1-3 4 5');
  t.equal(numbering.damaged(), true);
  t.equal(connection([opening(1, 9, 9), ...texts(9)]), 'epoch 1.1 skip 6-8 9');
});

test('a second opening, one after frames and one that cannot be read say nothing', async (t) => {
  const { connection } = createReading();
  t.equal(connection([opening(1, 1, 2), ...texts(1), opening(7, 1, 1), ...texts(2)]), 'epoch 1.1 1 2');
  const late = createReading();
  t.equal(late.connection([...texts(1), opening(3, 1, 1), ...texts(2)]), 'epoch 1.1 1 2');
  const bad = createReading();
  t.equal(bad.connection([frameText(0, 'on_open', { epoch: 'x' }), ...texts(1)]), 'epoch 1.1 1');
});

test('openings and rejections are never counted and never for viewers', async (t) => {
  const { connection, frames } = createReading();
  const rejected = frameText(0, 'on_rejected', { code: 'x', message: 'y' });
  t.equal(connection([opening(1, 0, 0), rejected, frameText(0), rejected, frameText(0)]), 'epoch 1.1 1 2');
  t.same(
    frames.map(({ text }) => (JSON.parse(text) as { seq: number }).seq),
    [1, 2],
  );
});

test('a numbered runtime without an opening goes on where it stopped', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(connection(texts(1, 2)), 'epoch 1.1 1 2');
  t.same(numbering.position(), { after: 2, epoch: null });
  t.equal(connection(texts(3, 4)), 'epoch 1.1 3 4');
  t.equal(connection(texts(5, 8)), 'epoch 1.1 5 hole');
  t.equal(connection(texts(8, 9)), 'epoch 1.1 skip 6-7 8 9', 'the same hole again');
});

test('an unreadable frame at the head of a later connection explains its hole there too', async (t) => {
  const { connection } = createReading();
  connection(texts(1, 2));
  t.equal(connection(['{', ...texts(4, 5)]), 'unreadable epoch 1.1 skip 3-3 4 5');
});

test('a runtime that opens later than it could goes on in the epoch that it has', async (t) => {
  const { connection, numbering } = createReading();
  connection(texts(1, 2));
  t.equal(connection([opening(1, 1, 3), ...texts(3)]), 'epoch 1.1 3');
  t.same(numbering.position(), { after: 3, epoch: 1 });
});

test('numbers that do not go on begin an epoch of the connection, with the newest state as 1', async (t) => {
  const state = Buffer.from(frameText(2, 'on_state_update', { files: {} }));
  const { connection, numbering, frames } = createReading(state);
  connection(texts(1, 2, 3));
  t.equal(connection(texts(1, 2)), 'epoch 1.r2! 1 2 3');
  t.same(
    frames.slice(3).map(({ text }) => (JSON.parse(text) as { seq: number }).seq),
    [1, 2, 3],
  );
  t.match(frames[3]?.text, /on_state_update/);
  t.equal(numbering.position(), null, 'such a connection cannot be resumed');
  t.equal(numbering.damaged(), true);
  t.equal(connection([frameText(0)]), 'epoch 1.r3! 1 2', 'and so for each later one');
});

test('without an opening, an attempt that somebody may have read before is counted in an epoch of its own', async (t) => {
  const again = createReading(null, false);
  t.equal(again.connection(texts(1, 2)), 'epoch 1.r1 1 2');
  t.equal(again.numbering.damaged(), false, 'it was read from the start');
  const opened = createReading(null, false);
  t.equal(
    opened.connection([opening(1, 1, 2), ...texts(1, 2)]),
    'epoch 1.1 1 2',
    'an opening says which log it is',
  );
});

test('a runtime without numbers is counted, by frames and by connections', async (t) => {
  const { connection, numbering } = createReading();
  t.equal(connection([frameText(0), frameText(0, 'end', {})]), 'epoch 1.1 1 2end');
  t.equal(numbering.position(), null);
  t.equal(connection([frameText(0), frameText(9)]), 'epoch 1.r2! 1 2', 'no state, nothing to begin with');
  t.equal(
    connection([opening(2, 1, 1), frameText(0)]),
    'epoch 1.r3! 1',
    'its opening has no numbers to mean',
  );
});

test('a runtime that numbers may send frames without a number, which are not counted', async (t) => {
  const { connection } = createReading();
  t.equal(
    connection([opening(1, 1, 9), ...texts(1), frameText(0), ...texts(2), frameText(0, 'end', {})]),
    'epoch 1.1 1 0 2 0end',
  );
});

test('the first readable frame decides, and a cut off one is not counted', async (t) => {
  const { connection } = createReading();
  t.equal(
    connection(['{', frameText(0), '{"seq":1,"event_type":"on_llm_stream","data":{x}}']),
    'unreadable epoch 1.1 1 unreadable',
  );
});

test('everything unusual may come in one read', async (t) => {
  const { connection } = createReading();
  const read = [
    opening(1, 3, 9),
    ...texts(3, 4),
    'noise',
    ...texts(4, 5, 6),
    frameText(0),
    '{',
    ...texts(8, 11, 12),
  ];
  t.equal(connection(read), 'epoch 1.1 skip 1-2 3 4 unreadable 5 6 0 unreadable skip 7-7 8 hole');
});

test('what was not used is read again after a rewind', async (t) => {
  const { connection, numbering } = createReading();
  connection([opening(1, 1, 4), ...texts(1, 2, 3, 4)]);
  numbering.rewind(2);
  t.same(numbering.position(), { after: 2, epoch: 1 });
  t.equal(connection([opening(1, 1, 4), ...texts(3, 4)]), 'epoch 1.1 3 4');
  t.equal(numbering.last(), 4);
});
