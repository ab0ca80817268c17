import { test } from 'tap';
import { readText } from './documents.js';
import { testTitles } from './test-titles.js';

/** Numbers of the requirements in each group; `x` = what its text demands beside the numbers. */
const groups: Record<string, readonly (number | 'x')[]> = {
  R1: [1, 2, 3, 4, 5],
  R2: [1, 2, 3, 4, 5],
  R3: [1, 2, 3, 4, 5],
  R4: [1, 2, 3, 4, 5],
  R5: [1, 2, 3, 4, 5],
  R6: [1, 2, 3, 4, 5, 'x'],
  R7: [1, 2, 3, 4, 5, 'x'],
  R8: [1, 2, 3, 4, 5],
  R9: [1, 2, 3, 4, 5],
  R10: [1, 2, 3, 4, 5],
};
const promises = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `P${number}`);
const criteria = [
  ...Object.entries(groups).flatMap(([group, numbers]) => numbers.map((number) => `${group}.${number}`)),
  ...promises,
];

interface Shown {
  criterion: string;
  titles: string[];
  missing: string[];
}

/** `- **R1.1** words`, and below it the titles of tests, or `not yet: why`. */
function criteriaOf(document: string): Shown[] {
  const shown: Shown[] = [];
  for (const line of document.split('\n')) {
    const criterion = /^- \*\*([RP][\d.x]+)\*\* \S/.exec(line)?.[1];
    if (criterion !== undefined) shown.push({ criterion, titles: [], missing: [] });
    const below = /^ {2}- (.+)$/.exec(line)?.[1];
    if (below === undefined) continue;
    const current = shown.at(-1);
    if (below.startsWith('not yet: ')) current?.missing.push(below);
    else current?.titles.push(below);
  }
  return shown;
}

const shown = criteriaOf(readText('docs/acceptance.md'));

test('every criterion stands in the list once, in order', async (t) => {
  t.strictSame(
    shown.map(({ criterion }) => criterion),
    criteria,
  );
});

test('every criterion names its tests, or says that there is none yet', async (t) => {
  for (const { criterion, titles, missing } of shown) {
    t.ok(titles.length + missing.length > 0, criterion);
    t.equal(new Set(titles).size, titles.length, `${criterion} names each test once`);
  }
});

test('every test that shows a criterion exists', async (t) => {
  const known = testTitles();
  for (const { criterion, titles } of shown) {
    for (const title of titles) t.ok(known.has(title), `${criterion}: ${title}`);
  }
});
