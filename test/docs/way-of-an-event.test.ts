import { test } from 'tap';
import { isThere, readText, sectionOf } from './documents.js';

const document = readText('docs/way-of-an-event.md');
const pipeline = readText('src/streams/thread-pipeline.ts');

/** Names of files in a text, in their order, each once. */
const filesIn = (text: string): string[] => [
  ...new Set([...text.matchAll(/[\w./-]+\.(?:ts|mjs|sql|md)\b/g)].map(([name]) => name)),
];

test('every file on the way of an event exists', async (t) => {
  const named = filesIn(document).filter((name) => name.includes('/'));
  t.ok(named.length > 20, 'the page names the files by their paths');
  for (const name of named) t.ok(isThere(name), name);
});

test('the files of the pipeline stand on the page in the order of its drawing', async (t) => {
  const drawing = pipeline.slice(0, pipeline.indexOf('*/'));
  const drawn = filesIn(drawing).map((name) => `src/streams/${name}`);
  t.ok(drawn.length >= 7, 'the drawing names its steps');
  const way = filesIn(sectionOf(document, 'The files in order'));
  const onPage = way.filter((name) => drawn.includes(name));
  t.strictSame(onPage, drawn);
});

test('the pipeline imports what its drawing names', async (t) => {
  const drawing = pipeline.slice(0, pipeline.indexOf('*/'));
  const imported = [...pipeline.matchAll(/from '\.\/([\w-]+)\.js'/g)].map(([, name]) => `${name}.ts`);
  const steps = filesIn(drawing).filter((name) => name !== 'decode-frame.ts');
  for (const name of steps) t.ok(imported.includes(name), name);
  t.match(readText('src/streams/number-frames.ts'), /from '\.\/decode-frame\.js'/, 'numbering decodes');
});
