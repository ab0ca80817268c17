import { test } from 'tap';
import {
  classify,
  type Hash,
  type PathState,
  pathsOf,
  sha256Of,
  textOf,
} from '../../src/db/conflict-rule.js';

test('every combination of base, draft and proposal has one state', async (t) => {
  const table: [Hash, Hash, Hash, PathState][] = [
    [null, null, null, 'unchanged'],
    [null, null, 'x', 'apply'],
    [null, 'x', null, 'unchanged'],
    [null, 'x', 'x', 'already'],
    [null, 'x', 'y', 'conflict'],
    ['x', null, null, 'already'],
    ['x', null, 'x', 'unchanged'],
    ['x', null, 'y', 'conflict'],
    ['x', 'x', null, 'apply'],
    ['x', 'x', 'x', 'unchanged'],
    ['x', 'x', 'y', 'apply'],
    ['x', 'y', null, 'conflict'],
    ['x', 'y', 'x', 'unchanged'],
    ['x', 'y', 'y', 'already'],
    ['x', 'y', 'z', 'conflict'],
  ];
  for (const [base, draft, proposal, state] of table) {
    t.equal(classify(base, draft, proposal), state, `${base} ${draft} ${proposal}`);
  }
});

test('only paths that the proposal mentions are compared, in path order', async (t) => {
  const found = pathsOf(
    { '/b': sha256Of('b'), '/left': sha256Of('l') },
    { '/b': sha256Of('b') },
    { '/b': null, '/a': { content: ['one', 'two'] } },
  );
  t.match(found, [
    { path: '/a', base: null, draft: null, proposal: sha256Of('one\ntwo'), state: 'apply' },
    { path: '/b', base: sha256Of('b'), draft: sha256Of('b'), proposal: null, state: 'apply' },
  ]);
  t.equal(found.length, 2);
});

test('the hash is taken over the UTF-8 of the joined lines', async (t) => {
  t.equal(textOf({ content: ['é', ''] }), 'é\n');
  t.equal(sha256Of(''), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
});
