import { test } from 'tap';
import { proposalStates } from '../../src/actors/proposal-types.js';
import { codeOf, readText, rowsOf, sectionOf } from './documents.js';
import { testTitles } from './test-titles.js';

const document = readText('docs/lifecycle.md');

test('every state of the machine is described, and no other', async (t) => {
  const described = rowsOf(sectionOf(document, 'States')).map(([state = '']) => codeOf(state));
  t.strictSame(described.sort(), [...proposalStates].sort());
});

test('the events that are described are those of the machine', async (t) => {
  const types = readText('src/actors/proposal-types.ts');
  const streams = readText('src/streams/stream-signals.ts');
  const union = types.slice(types.indexOf('export type ProposalEvent ='));
  const facts = streams.slice(streams.indexOf('export type LifecycleFact ='));
  const known = [...`${union}${facts}`.matchAll(/\| \{ type: '([\w.]+)'/g)].map(([, name]) => name);
  const described = rowsOf(sectionOf(document, 'Events')).map(([event = '']) => codeOf(event));
  t.strictSame(described.sort(), [...new Set(known)].sort());
});

test('every invariant is numbered and names a test that exists', async (t) => {
  const titles = testTitles();
  const lines = sectionOf(document, 'Invariants').split('\n');
  const numbers: number[] = [];
  const named = new Map<number, number>();
  for (const line of lines) {
    const number = /^(\d+)\. /.exec(line)?.[1];
    if (number !== undefined) numbers.push(Number(number));
    const title = /^ +- (?!not yet: )(.+)$/.exec(line)?.[1];
    const current = numbers.at(-1);
    if (title === undefined || current === undefined) continue;
    named.set(current, (named.get(current) ?? 0) + 1);
    t.ok(titles.has(title), `${current}: ${title}`);
  }
  t.strictSame(
    numbers,
    numbers.map((_, index) => index + 1),
  );
  for (const number of numbers) t.ok(named.has(number), `invariant ${number} has a test`);
});
