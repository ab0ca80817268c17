import t from 'tap';
import { sha256Of } from '../../src/db/conflict-rule.js';
import { diffOf } from '../../src/http/proposal-diff.js';

const draftOf = (files: Record<string, string>) => ({
  id: '1',
  revision: 1,
  files: Object.fromEntries(
    Object.entries(files).map(([path, content]) => [
      path,
      { content, sha256: sha256Of(content), revision: 1, updatedAt: '2026-01-01T00:00:00.000Z' },
    ]),
  ),
});
const basesOf = (files: Record<string, string>) =>
  Object.fromEntries(Object.entries(files).map(([path, text]) => [path, sha256Of(text)]));
const wire = (text: string) => ({ content: text.split('\n') });

/** Every line of these texts is another one. */
const noise = (seed: string, lines: number) =>
  Array.from({ length: lines }, (_, line) => sha256Of(`${seed}${line}`)).join('\n');

t.test(
  'texts that would take too long to compare are told as replaced, and the rest of the files still come',
  async (t) => {
    const files = { '/a': noise('a', 5_000), '/b': 'b\n', '/c': noise('c', 5_000) };
    // Every second line is the same: a diff that is worked out to its end would keep them.
    const other = noise('x', 5_000).split('\n');
    const mixed = files['/a'].split('\n').map((line, at) => (at % 2 === 0 ? line : (other[at] ?? '')));
    const diff = await diffOf({
      baseHashes: basesOf(files),
      draft: draftOf(files),
      generatedFiles: { '/a': { content: mixed }, '/b': wire('B\n'), '/c': null },
    });
    t.same(
      diff.map(({ path, status }) => [path, status]),
      [
        ['/a', 'modified'],
        ['/b', 'modified'],
        ['/c', 'removed'],
      ],
    );
    const [hunk] = diff[0]?.hunks ?? [];
    t.match(hunk, { old_start: 1, old_lines: 5_000, new_start: 1, new_lines: 5_000 });
    t.equal(hunk?.lines.filter((line) => line.startsWith('-')).length, 5_000);
    t.equal(hunk?.lines.filter((line) => line.startsWith('\\')).length, 2, 'neither ends in a line break');
    t.same(diff[1]?.hunks[0]?.lines, ['-b', '+B']);
  },
);

t.test('without a draft every file of the proposal is new or in conflict', async (t) => {
  const diff = await diffOf({
    baseHashes: basesOf({ '/a': 'a' }),
    draft: null,
    generatedFiles: { '/a': wire('A'), '/n': wire('n'), '/gone': null },
  });
  t.same(
    diff.map(({ path, status }) => [path, status]),
    [
      ['/a', 'conflict'],
      ['/gone', 'unchanged'],
      ['/n', 'added'],
    ],
  );
  t.same(await diffOf({ baseHashes: {}, draft: null, generatedFiles: null }), []);
});
