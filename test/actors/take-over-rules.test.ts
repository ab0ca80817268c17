import t from 'tap';
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
