import { test } from 'tap';
import { readText, sectionOf } from './documents.js';
import { testTitles } from './test-titles.js';

const rules = Array.from({ length: 23 }, (_, index) => index + 1);

/** Tests by the rules that their titles end with: `… (rule 7)`, `… (rules 1, 2)`. */
function titlesByRule(): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const title of testTitles()) {
    const numbers = /\(rules? (\d+(?:, \d+)*)\)$/.exec(title)?.[1] ?? '';
    for (const number of numbers
      .split(', ')
      .filter((one) => one !== '')
      .map(Number)) {
      found.set(number, [...(found.get(number) ?? []), title]);
    }
  }
  return found;
}

const titles = titlesByRule();

test('every rule is named by the title of a test', async (t) => {
  t.strictSame(
    rules.filter((rule) => !titles.has(rule)),
    [],
  );
  t.strictSame(
    [...titles.keys()].filter((rule) => !rules.includes(rule)),
    [],
  );
});

test('every rule stands in the list once, with tests that name it', async (t) => {
  const listed = new Map<number, string[]>();
  for (const line of sectionOf(readText('docs/lifecycle.md'), 'Rules').split('\n')) {
    const number = /^(\d+)\. /.exec(line)?.[1];
    if (number !== undefined) listed.set(Number(number), []);
    const title = /^ +- (.+)$/.exec(line)?.[1];
    if (title !== undefined) [...listed.values()].at(-1)?.push(title);
  }
  t.strictSame([...listed.keys()], rules);
  for (const [rule, lines] of listed) {
    t.ok(lines.length > 0, `rule ${rule} has a line`);
    const known = titles.get(rule) ?? [];
    for (const line of lines) {
      if (line.startsWith('not yet: ')) t.strictSame(known, [], `rule ${rule} has tests by now`);
      else t.ok(known.includes(line), `rule ${rule}: ${line}`);
    }
  }
});
