import fs from 'node:fs';
import path from 'node:path';

/** Files of one folder that share a process. Those that start processes of their own, or wait much, share it with fewer. */
const largestGroup = 20;
const smallerGroups: Readonly<Record<string, number>> = {
  'dist/test/e2e': 1,
  'dist/test/embedded': 4,
  'dist/test/service': 2,
  'dist/test/http': 5,
  'dist/test/db': 6,
  'runtime/dist/test/agent': 3,
  'runtime/dist/test/service': 3,
};

/**
 * A root test with a teardown ends when nothing is under way for a moment, and so between two files, with the rest of
 * them left out: it is never idle before all of them are there.
 */
const BEGIN = `import t from 'tap';
Object.defineProperty(t, 'idle', { configurable: true, get: () => false });
`;
const END = `delete t.idle;
if (t.idle) t.emit('idle');
`;

/**
 * Puts compiled test files together, so that they share a process: starting one, with tap and coverage, costs a second
 * of CPU, more than most files take. Writes one file for each group to `folder`, which is emptied first, and answers what
 * tap is to run. The tests of a group run one after another, as those of one file do.
 *
 * @param files compiled test files, relative to the present folder
 */
export function groupTests(files: readonly string[], folder: string): string[] {
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  const folders = byFolder(files);
  const groups: string[] = [];
  for (const [name, members] of folders) {
    const size = smallerGroups[name] ?? largestGroup;
    // Spread evenly, neighbours apart: files of one subject tend to be equally long.
    const count = Math.ceil(members.length / size);
    for (let index = 0; index < count; index++) {
      const own = members.filter((_, at) => at % count === index);
      if (own.length === 1) groups.push(own[0] ?? '');
      else groups.push(writeGroup(own, folder, `${name.replaceAll(/\W+/g, '-')}-${index + 1}`));
    }
  }
  return groups;
}

function byFolder(files: readonly string[]): Map<string, string[]> {
  const folders = new Map<string, string[]>();
  for (const file of files) {
    const name = path.dirname(file);
    folders.set(name, [...(folders.get(name) ?? []), file]);
  }
  return folders;
}

function writeGroup(members: readonly string[], folder: string, name: string): string {
  const file = path.join(folder, `${name}.test.js`);
  const imports = members.map((member) => `await import('${path.posix.relative(folder, member)}');\n`);
  fs.writeFileSync(file, [BEGIN, ...imports, END].join(''));
  return file;
}
