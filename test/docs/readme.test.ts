import fs from 'node:fs';
import path from 'node:path';
import { test } from 'tap';
import { filesBelow, isThere, readText, root } from './documents.js';

const documents = ['README.md', 'CHANGELOG.md', ...filesBelow('docs', '.md')];

test('every link between the documents leads somewhere', async (t) => {
  for (const document of documents) {
    for (const [, target = ''] of readText(document).matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      t.ok(isThere(path.posix.join(path.posix.dirname(document), target)), `${document}: ${target}`);
    }
  }
});

test('every npm command that the documents name is there', async (t) => {
  const { scripts } = JSON.parse(readText('package.json')) as { scripts: Record<string, string> };
  for (const document of documents) {
    for (const [, name = ''] of readText(document).matchAll(/`npm run ([\w:-]+)/g)) {
      t.ok(Object.hasOwn(scripts, name), `${document}: npm run ${name}`);
    }
  }
});

test('the README names the folders that there are', async (t) => {
  const map = /```text\n([\s\S]*?)```/.exec(readText('README.md'))?.[1] ?? '';
  const folders = [...map.matchAll(/^( {0,2})([\w-]+\/)/gm)].map(([, indent, name = '']) =>
    indent === '' ? name : `src/${name}`,
  );
  t.ok(folders.length >= 8, 'the map lists the folders');
  for (const name of folders) t.ok(isThere(name), name);
  const there = fs.readdirSync(path.join(root, 'src'), { withFileTypes: true });
  for (const entry of there) {
    if (entry.isDirectory()) t.ok(folders.includes(`src/${entry.name}/`), `src/${entry.name}/ is on the map`);
  }
});
