import t from 'tap';
import type { ProposalState } from '../../src/actors/proposal-types.js';
import { createThreadWatchdog } from '../../src/actors/thread-watchdog.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';

const rowOf = (takenOver = 0, deadlineInMs = 1e9) => ({ takenOver, deadlineInMs }) as ThreadRow;

/** A watchdog on a clock of the test's, ticked once a second. */
function bench(row = rowOf()) {
  const world = { now: 0, state: 'streaming' as ProposalState, reads: 0, silentMs: 0 };
  const said: string[] = [];
  const note = (what: string) => () => void said.push(`${what} ${world.now}`);
  const watchdog = createThreadWatchdog(
    {
      now: () => world.now,
      idleMs: 5_000,
      state: () => world.state,
      reads: () => world.reads,
      runtimeSilentMs: () => world.silentMs,
      onStalled: note('stalled'),
      onDeadline: note('deadline'),
      onProven: note('proven'),
      onUnreached: note('unreached'),
    },
    row,
  );
  /** Ticks on time up to that moment. */
  const until = (end: number) => {
    while (world.now + 1_000 <= end) {
      world.now += 1_000;
      watchdog.tick(false);
    }
    return said.splice(0);
  };
  return { world, watchdog, until, said };
}

t.test('a run is idle from its first frame on, on the monotonic clock (rule 14)', async (t) => {
  const { world, until } = bench();
  t.strictSame(until(60_000), [], 'a run may wait for its turn');
  world.reads = 1;
  t.strictSame(until(66_000), [], 'the frame was seen at 61 s');
  t.strictSame(until(67_000), ['stalled 67000']);
});

t.test('a watchdog that fires late is armed once more before it counts (rule 14)', async (t) => {
  const { world, watchdog, until, said } = bench(rowOf(0, 8_000));
  world.reads = 1;
  t.strictSame(until(2_000), []);
  // The process stood still; the frames and the end that waited are read behind the timers.
  world.now = 9_500;
  watchdog.tick(true);
  t.strictSame(said, []);
  world.reads = 2;
  t.strictSame(until(10_500), ['deadline 10500'], 'the frame was heard; the deadline is over all the same');
  const silent = bench();
  silent.world.reads = 1;
  silent.until(1_000);
  silent.world.now = 9_500;
  silent.watchdog.tick(true);
  t.strictSame(silent.until(10_500), ['stalled 10500'], 'nothing was waiting');
});

t.test('with a new owner the idle time begins anew (rule 14)', async (t) => {
  const { world, watchdog, until } = bench();
  world.reads = 1;
  until(5_000);
  watchdog.own(rowOf());
  t.strictSame(until(11_000), []);
  t.strictSame(until(12_000), ['stalled 12000']);
});

t.test(
  'an owner that has read a frame, or held the thread for 10 s, sets the count to 0 (rule 13)',
  async (t) => {
    const reads = bench(rowOf(2));
    t.strictSame(reads.until(3_000), []);
    reads.world.reads = 1;
    reads.world.now += 1;
    reads.watchdog.read();
    t.strictSame(reads.said.splice(0), ['proven 3001'], 'at once, not with the next look');
    reads.watchdog.read();
    t.strictSame(reads.until(8_000), [], 'once');
    const follows = bench(rowOf(3));
    follows.world.state = 'following';
    follows.world.reads = 1;
    follows.watchdog.read();
    t.strictSame(follows.said, [], 'a reader has proved nothing');
    follows.watchdog.own(rowOf(4));
    follows.world.state = 'streaming';
    follows.watchdog.read();
    t.strictSame(follows.said, [], 'nor has what it read before');
    follows.world.reads = 2;
    follows.watchdog.read();
    t.strictSame(follows.said, ['proven 0']);
    const holds = bench(rowOf(1));
    holds.world.state = 'invoking';
    t.strictSame(holds.until(9_000), []);
    t.strictSame(holds.until(10_000), ['proven 10000']);
    const fails = bench(rowOf(4));
    fails.world.state = 'finalizing';
    t.strictSame(fails.until(60_000), [], 'not one that is failing it as poisoned');
    const clean = bench();
    clean.world.reads = 1;
    t.strictSame(clean.until(4_000), [], 'nothing to set');
  },
);

t.test('a runtime that was not reached for 15 s is told, and no sooner (rule 16)', async (t) => {
  const { world, until } = bench();
  until(5_000);
  world.state = 'reconnecting';
  world.silentMs = 60_000;
  t.strictSame(until(20_000), [], 'the thread itself has stood for 14 s');
  t.strictSame(until(21_000), ['unreached 21000']);
  world.silentMs = 14_999;
  t.strictSame(until(40_000), [], 'something else has reached it meanwhile');
  world.silentMs = 15_000;
  world.state = 'streaming';
  t.strictSame(until(41_000), []);
  world.state = 'invoking';
  t.strictSame(until(56_000), [], 'each loss anew');
  t.strictSame(until(57_000), ['unreached 57000']);
});

t.test('a deadline is the row’s, and moves with it', async (t) => {
  const { world, watchdog, until } = bench(rowOf(0, 4_500));
  world.state = 'invoking';
  t.strictSame(until(4_000), []);
  t.notOk(watchdog.pastDeadline());
  watchdog.observe(rowOf(0, 2_000));
  t.strictSame(until(6_000), []);
  t.strictSame(until(7_000), ['deadline 7000']);
  t.ok(watchdog.pastDeadline());
  t.equal(watchdog.askUntil(), 0, 'its owner has asked all the time');
  watchdog.own(rowOf(0, -1));
  t.equal(watchdog.askUntil(), 22_000, 'a new one has not');
});
