import t from 'tap';
import { createDeathWatch } from '../../src/actors/death-watch.js';

const node = (id: string, beat: number) => ({ id, beat, runtimeReachable: true });
const still = [node('self', 1), node('other', 7)];

/** Polls every 500 ms from `from` up to and with `to`; the beats on which the last one found replicas dead. */
function poll(watch: ReturnType<typeof createDeathWatch>, from: number, to: number, nodes = still) {
  let dead: ReturnType<typeof watch.seen> = [];
  for (let now = from; now <= to; now += 500) dead = watch.seen(nodes, now);
  return dead;
}

t.test(
  'a beat that stands still through 3 s of answered polls is a death, and not a moment before (rule 12)',
  async (t) => {
    const watch = createDeathWatch('self');
    t.strictSame(poll(watch, 0, 2_500), []);
    t.strictSame(watch.seen(still, 2_999), []);
    t.strictSame(watch.seen(still, 3_000), [{ id: 'other', beat: 7, since: 0 }]);
    t.strictSame(watch.seen(still, 3_500), [{ id: 'other', beat: 7, since: 0 }], 'and stays one');
  },
);

t.test('a beat that moves, even backwards, lives', async (t) => {
  const watch = createDeathWatch('self');
  poll(watch, 0, 2_500);
  t.strictSame(watch.seen([node('other', 6)], 3_000), []);
  t.strictSame(poll(watch, 3_500, 5_500, [node('other', 6)]), []);
  t.strictSame(watch.seen([node('other', 6)], 6_000), [{ id: 'other', beat: 6, since: 3_000 }]);
});

t.test('a replica never finds itself dead', async (t) => {
  t.strictSame(poll(createDeathWatch('other'), 0, 10_000, [node('other', 7)]), []);
});

t.test('after a gap of more than 1.5 s between polls the watch begins anew (rule 12)', async (t) => {
  const watch = createDeathWatch('self');
  poll(watch, 0, 2_500);
  t.strictSame(watch.seen(still, 4_001), []);
  t.strictSame(poll(watch, 4_501, 6_501), []);
  t.strictSame(watch.seen(still, 7_001), [{ id: 'other', beat: 7, since: 4_001 }]);
  const patient = createDeathWatch('self');
  t.strictSame(patient.seen(still, 0), []);
  t.strictSame(patient.seen(still, 1_500), []);
  t.strictSame(patient.seen(still, 3_000), [{ id: 'other', beat: 7, since: 0 }], '1.5 s is no gap');
});

t.test('a poll that failed begins the watch anew, however short the gap (rule 12)', async (t) => {
  const watch = createDeathWatch('self');
  poll(watch, 0, 2_500);
  watch.failed();
  t.strictSame(poll(watch, 3_000, 5_500), []);
  t.strictSame(watch.seen(still, 6_000), [{ id: 'other', beat: 7, since: 3_000 }]);
});

t.test('a replica that left and one that is new are not mistaken for each other', async (t) => {
  const watch = createDeathWatch('self');
  poll(watch, 0, 2_500);
  t.strictSame(watch.seen([node('new', 7)], 3_000), []);
  t.strictSame(watch.seen([node('new', 7), node('other', 7)], 3_500), [], 'seen again, it is watched anew');
});
