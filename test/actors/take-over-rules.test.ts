import t from 'tap';
import { createDeathWatch, LARGEST_GAP_MS } from '../../src/actors/death-watch.js';
import { createOutageRest } from '../../src/actors/outage-rest.js';
import { createLeftBehind, roomInShare } from '../../src/actors/take-over-share.js';

t.test('what is judged by silence rests until 10 s after the database came back (rule 13)', async (t) => {
  const rest = createOutageRest();
  rest.answered(0);
  t.notOk(rest.resting(0), 'a start is no outage');
  rest.failed();
  t.ok(rest.resting(500));
  t.ok(rest.resting(60_000), 'for as long as it is away');
  rest.answered(60_000);
  rest.answered(60_500);
  t.ok(rest.resting(69_999));
  t.notOk(rest.resting(70_000));
  rest.failed();
  rest.answered(71_000);
  t.ok(rest.resting(80_999), 'each outage anew');
});

const nodes = (...ids: string[]) =>
  ids.map((id) => ({ id: id.replace('!', ''), runtimeReachable: !id.endsWith('!') }));
const room = (all: number, own: number, living: { id: string; runtimeReachable: boolean }[], dead = ['x']) =>
  roomInShare({ node: 'me', nodes: living, dead: new Set(dead), unfinished: { all, own } });

t.test('those that live share what a dead replica leaves (rule 13)', async (t) => {
  t.equal(room(10, 0, nodes('me')), 10, 'one alone takes all');
  t.equal(room(10, 0, nodes()), 10, 'even one whose own beat is not there');
  t.equal(room(10, 2, nodes('me', 'x')), 8, 'the dead have no share');
  t.equal(room(9, 3, nodes('me', 'a', 'x')), 2, 'half of nine, rounded up');
  t.equal(room(9, 5, nodes('me', 'a', 'x')), 0);
  t.equal(room(9, 7, nodes('me', 'a', 'x')), 0, 'who has more gives nothing back');
  t.equal(room(9, 0, nodes('me', 'a!', 'x')), 9, 'who does not reach the runtime has no share');
  t.equal(room(9, 0, nodes('me!', 'a', 'x')), 0);
  t.equal(room(9, 0, nodes('me!', 'a!', 'x')), 5, 'where nobody does all have one');
});

t.test('a share leaves nothing behind that the others do not take (rule 12)', async (t) => {
  const left = createLeftBehind<{ ownerNode: string | null; id: number }>();
  const rows = (owner: string | null, ...ids: number[]) => ids.map((id) => ({ ownerNode: owner, id }));
  const ids = (chosen: { id: number }[]) => chosen.map(({ id }) => id);
  t.strictSame(ids(left.choose(rows('x', 1, 2, 3), 2, 0)), [1, 2], 'at first sight the share');
  t.strictSame(ids(left.choose(rows('x', 3), 0, 899)), []);
  t.strictSame(ids(left.choose([...rows('x', 3), ...rows(null, 4)], 0, 900)), [3], 'then whatever is left');
  t.strictSame(
    ids(left.choose([...rows('x', 3), ...rows(null, 4, 5)], 2, 1_000)),
    [3, 4],
    'within the share',
  );
  left.choose([], 0, 1_500);
  t.strictSame(ids(left.choose(rows('x', 6), 0, 2_000)), [], 'what comes later is fresh again');
});

/** Numbers from 0 up to 1, the same in every run. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    const mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/**
 * One replica watches another through an outage of the database: it refuses, or freezes and answers afterwards. The
 * other's beat comes back within 1 s, or 3 s where it has given its frozen connection up (after 2 s). Answers when the other was judged dead, by both rules together.
 */
function judgedAt(random: () => number, outage: { from: number; to: number }, diesAt: number): number | null {
  const watch = createDeathWatch('self');
  const rest = createOutageRest();
  const frozen = random() < 0.5;
  const phase = random() * 500;
  const lost = frozen && outage.to - outage.from >= 2_000;
  const beatsAgainAt = outage.to + random() * (lost ? 3_000 : 1_000);
  const away = (now: number) => now >= outage.from && now < outage.to;
  const beatAt = (now: number) => {
    const alive = Math.min(now, diesAt);
    const missed = Math.max(0, Math.min(alive, beatsAgainAt) - outage.from);
    return Math.floor((alive - missed + phase) / 500);
  };
  for (let now = 0; now < outage.to + 30_000; now += 500 + Math.floor(random() * 5)) {
    const asked = now;
    if (away(now) && !frozen) {
      watch.failed();
      rest.failed();
      continue;
    }
    if (away(now)) now = outage.to;
    if (now - asked > LARGEST_GAP_MS) rest.failed();
    rest.answered(now);
    const dead = watch.seen([{ id: 'other', beat: beatAt(now), runtimeReachable: true }], now);
    if (dead.length > 0 && !rest.resting(now)) return now;
  }
  return null;
}

t.test(
  'in 1,000 outages no healthy replica is taken for dead, and a dead one is found in time (rule 12)',
  async (t) => {
    const random = randomFrom(7);
    const stolen: unknown[] = [];
    const late: unknown[] = [];
    for (let round = 0; round < 1_000; round++) {
      const from = 5_000 + random() * 5_000;
      const outage = { from, to: from + random() ** 2 * 30_000 };
      const judged = judgedAt(random, outage, Number.POSITIVE_INFINITY);
      if (judged !== null) stolen.push({ outage, judged });
      const diesAt = 5_000 + random() * 1_000;
      const found = judgedAt(random, { from: 60_000, to: 60_000 }, diesAt);
      if (found === null || found - diesAt > 4_000) late.push({ diesAt, found });
    }
    t.strictSame([stolen.slice(0, 3), late.slice(0, 3)], [[], []]);
  },
);
