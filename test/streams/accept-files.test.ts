import { test } from 'tap';
import { acceptFiles } from '../../src/streams/newest-files.js';

const file = (...content: string[]) => ({ content });
const codesOf = (given: Record<string, unknown>, allowed?: { fileBytes: number; files: number }) =>
  acceptFiles(given, allowed).warnings.map(({ code, path }) => `${code} ${path}`);

test('plain files, empty ones and deleted ones are taken as they were sent', async (t) => {
  const given = {
    '/a.md': {
      content: ['one', '', 'three'],
      created_at: '2026-01-01T00:00:00Z',
      modified_at: '2026-01-01T00:00:00Z',
    },
    '/empty': file(),
    '/gone': null,
    '/THE SPEC/é/x.json': { content: ['{}'], encoding: 'utf-8', size: 2, ok: true, none: null },
  };
  t.same(acceptFiles(given), { files: given, warnings: [] });
});

test('an unsafe path is refused and named, and the rest goes on', async (t) => {
  const unsafe = [
    'a.md',
    '',
    '/',
    '/a/',
    '//a',
    '/a//b',
    '/../etc',
    '/a/..',
    '/./a',
    '/a\\b',
    '/a\nb',
    '/a\u007f',
    `/${'x'.repeat(600)}`,
  ];
  const given = Object.fromEntries([...unsafe.map((path) => [path, file('x')]), ['/good', file('x')]]);
  const { files, warnings } = acceptFiles(given);
  t.same(Object.keys(files), ['/good']);
  t.equal(warnings.length, unsafe.length);
  for (const warning of warnings) t.equal(warning.code, 'unsafe_path');
  t.equal(acceptFiles({ '../a': null }).warnings.length, 1, 'also where the file was deleted');
  t.ok(
    warnings.every(({ path = '' }) => path.length <= 512),
    'a warning is no place for a long path',
  );
});

test('text that PostgreSQL cannot hold is refused in paths and lines, and replaced elsewhere', async (t) => {
  t.same(codesOf({ '/a\u0000': file('x') }), ['invalid_content /a\uFFFD']);
  t.same(codesOf({ '/a\uD800': file('x') }), ['invalid_content /a\uFFFD']);
  t.same(codesOf({ '/a': file('x\u0000') }), ['invalid_content /a']);
  t.same(codesOf({ '/a': file('x', '\uDC00') }), ['invalid_content /a']);
  t.same(codesOf({ '/a': file('😀') }), []);
  const { files } = acceptFiles({
    '/a': { content: ['x'], created_at: 'then\u0000', 'odd\u0000name': 1, nested: { text: '\u0000' } },
  });
  t.same(files, { '/a': { content: ['x'], created_at: 'then\uFFFD' } });
});

test('a file of another shape is refused', async (t) => {
  for (const value of [
    'text',
    5,
    [],
    {},
    { content: 'text' },
    { content: [1] },
    { content: null },
    { content: [], created_at: 5 },
  ]) {
    t.same(codesOf({ '/a': value }), ['invalid_file /a'], JSON.stringify(value));
  }
});

test('size counts the bytes of the text with its line ends, and the limit is allowed', async (t) => {
  const allowed = { fileBytes: 10, files: 3 };
  t.same(codesOf({ '/a': file('12345', '6789') }, allowed), []);
  t.same(codesOf({ '/a': file('12345', '67890') }, allowed), ['oversized_file /a']);
  t.same(codesOf({ '/a': file('éééé', 'é') }, allowed), ['oversized_file /a']);
  t.same(codesOf({ '/a': file(...Array.from({ length: 12 }, () => '')) }, allowed), ['oversized_file /a']);
});

test('more files than allowed are refused from there on, and refused ones do not count', async (t) => {
  const given = { bad: file('x'), '/1': file('x'), '/2': null, '/3': file('x'), '/4': file('x') };
  const { files, warnings } = acceptFiles(given, { fileBytes: 10, files: 3 });
  t.same(Object.keys(files), ['/1', '/2', '/3']);
  t.same(
    warnings.map(({ code }) => code),
    ['unsafe_path', 'too_many_files'],
  );
});
