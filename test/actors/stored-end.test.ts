import t from 'tap';
import { untilCaughtUp } from '../../src/actors/stored-end.js';

/** Waits on a clock of its own; the log grows by one number each 5 ms. Answers what had passed. */
async function waited(
  epoch: string,
  numbers: number[],
  options: { viewers?: number; released?: number; stops?: number } = {},
) {
  const { viewers = 1, released = 0, stops = Number.POSITIVE_INFINITY } = options;
  let clock = 0;
  const frames = numbers.map((seq) => ({ seq, bytes: Buffer.alloc(0) }));
  await untilCaughtUp(
    {
      fanOut: { epoch: () => '1.1', lastReleased: () => released + clock / 5, size: () => viewers },
      sleep: async (milliseconds) => {
        clock += milliseconds;
      },
      now: () => clock,
      isStopped: () => clock >= stops,
    },
    { epoch, frames },
  );
  return clock;
}

t.test('a reader waits for what the last frames do not bring, and for nothing else', async (t) => {
  t.equal(await waited('1.1', [3, 9]), 40, 'up to 8');
  t.equal(await waited('1.1', [3, 8, 9]), 35, 'an error before the end is no part of it');
  t.equal(await waited('1.1', [7, 8, 9]), 30, 'nor a state');
  t.equal(await waited('1.1', [3, 9], { released: 8 }), 0);
  t.equal(await waited('1.closed', [1, 2, 3]), 0, 'an epoch of ours has no log');
  t.equal(await waited('1.1', []), 0);
});

t.test('it waits for nobody, not for ever, and not while the replica stops', async (t) => {
  t.equal(await waited('1.1', [9], { viewers: 0 }), 0);
  t.equal(await waited('1.1', [1_000_000]), 1_000);
  t.equal(await waited('1.1', [1_000], { stops: 50 }), 50);
});
