import { NEVER, type Observable, of } from 'rxjs';
import { test } from 'tap';
import { type AskedState, reconnecting } from '../../src/streams/reconnect.js';
import type { NumberedSignal } from '../../src/streams/stream-signals.js';
import { numberedBatch } from '../support/frames.js';

const frames: NumberedSignal = { type: 'frames', batch: numberedBatch([{ seq: 1 }]) };
const connected: NumberedSignal = { type: 'connected', send: () => true };
const closed = (code: number): NumberedSignal => ({ type: 'closed', code });
const refused = (status: number): NumberedSignal => ({ type: 'refused', status });
const running: AskedState = { kind: 'state', state: { thread_id: 't', status: 'running' } };
const completed: AskedState = { kind: 'state', state: { thread_id: 't', status: 'completed' } };

/** Connections that come one after the other; the last one stays open. */
function follow(
  connections: Observable<NumberedSignal>[],
  options: { asked?: AskedState[]; resumable?: boolean; ended?: () => boolean } = {},
) {
  const said: string[] = [];
  const delays: number[] = [];
  let asked = 0;
  let made = 0;
  const subscription = reconnecting({
    connect: () => connections[made++] ?? NEVER,
    resumable: () => options.resumable ?? true,
    ended: options.ended ?? (() => false),
    askState: async () => {
      const answer = options.asked?.[asked] ?? running;
      asked++;
      return answer;
    },
    delayMs: (failures) => {
      delays.push(failures);
      return 1;
    },
    sleep: async () => {
      await new Promise<void>((resolve) => setImmediate(resolve));
    },
  }).subscribe({
    // How a connection ended is passed on, and means nothing to anybody after this step.
    next: (signal) => {
      if (!['closed', 'refused', 'hole'].includes(signal.type)) said.push(signal.type);
    },
    complete: () => said.push('complete'),
  });
  const settled = async () => {
    for (let turn = 0; turn < 60; turn++) await new Promise((resolve) => setImmediate(resolve));
    return said.join(' ');
  };
  return { settled, delays, subscription, made: () => made, asked: () => asked };
}

test('a lost connection that brought frames is opened again with the first delay, without a question', async (t) => {
  const { settled, delays, asked, subscription } = follow([
    of(frames, closed(1006)),
    of(frames, closed(1006)),
  ]);
  t.equal(await settled(), 'frames lost frames lost');
  t.same(delays, [0, 0]);
  t.equal(asked(), 0);
  subscription.unsubscribe();
});

test('connections that bring nothing are opened with growing delays, and the state is asked', async (t) => {
  const { settled, delays, asked, subscription } = follow([1, 2, 3].map(() => of(connected, closed(1006))));
  t.equal(await settled(), 'connected lost connected lost connected lost');
  t.same(delays, [1, 2, 3]);
  t.equal(asked(), 3);
  subscription.unsubscribe();
});

test('a connection that could not be made asks nothing: the runtime would not answer either', async (t) => {
  const { settled, delays, asked, subscription } = follow([1, 2].map(() => of(closed(1006))));
  t.equal(await settled(), 'lost lost');
  t.same(delays, [1, 2]);
  t.equal(asked(), 0);
  subscription.unsubscribe();
});

test('a connection closed with 1000 before the end asks the state, and a final one is the end', async (t) => {
  const { settled } = follow([of(frames, closed(1000)), of(frames, closed(1000))], {
    asked: [running, completed],
  });
  t.equal(await settled(), 'frames lost frames lost state complete');
});

test('where a connection cannot be resumed the state is asked', async (t) => {
  const { settled } = follow([of(frames, closed(1006))], { asked: [completed], resumable: false });
  t.equal(await settled(), 'frames lost state complete');
});

test('a runtime that is away, or does not know, is told apart', async (t) => {
  const away = follow([of(connected, closed(1006)), of(connected, closed(1006))], {
    asked: [{ kind: 'away' }, { kind: 'not_found' }],
  });
  t.equal(await away.settled(), 'connected lost connected lost unknown complete');
});

test('a refused upgrade is tried again with growing delays, unless the thread is unknown', async (t) => {
  const { settled, delays, asked } = follow([of(refused(503)), of(refused(503)), of(refused(404))]);
  t.equal(await settled(), 'lost lost unknown complete');
  t.same(delays, [1, 2]);
  t.equal(asked(), 0);
});

test('a frame over the limit ends it', async (t) => {
  const { settled } = follow([of<NumberedSignal[]>(frames, { type: 'oversized' })]);
  t.equal(await settled(), 'frames oversized complete');
});

test('a run that has told its end is not read again', async (t) => {
  const { settled, made } = follow([of(frames, closed(1006))], { ended: () => true });
  t.equal(await settled(), 'frames complete');
  t.equal(made(), 1);
});

test('a hole is filled at once and without a word, and holes in a row at a slower pace', async (t) => {
  const hole = () => of<NumberedSignal[]>(frames, { type: 'hole' });
  const one = follow([hole(), of(frames, closed(1006))]);
  t.equal(await one.settled(), 'frames frames lost');
  t.same(one.delays, [0]);
  one.subscription.unsubscribe();
  const many = follow([hole(), hole(), hole(), hole()]);
  t.equal(await many.settled(), 'frames frames frames frames');
  t.same(many.delays, [0, 1, 2]);
  many.subscription.unsubscribe();
  const long = () => of<NumberedSignal[]>(...Array.from({ length: 200 }, () => frames), { type: 'hole' });
  const rare = follow([long(), long(), long()]);
  await rare.settled();
  t.same(rare.delays, [], 'a hole now and then is no row');
  rare.subscription.unsubscribe();
});

test('unsubscribing ends everything: no question, no further connection', async (t) => {
  const during = follow([of(closed(1006)), of(closed(1006))], { asked: [running, running] });
  during.subscription.unsubscribe();
  const made = during.made();
  t.equal(await during.settled(), 'lost');
  t.equal(during.made(), made);
});
