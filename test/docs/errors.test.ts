import {
  type CatalogueEntry,
  closeCodes,
  httpErrors,
  rejectionCodes,
  runErrors,
  runtimeHttpErrors,
  warningCodes,
} from '@ide-orchestrator/protocol';
import { test } from 'tap';
import { codeOf, filesBelow, readText, rowsOf, sectionOf } from './documents.js';

const document = readText('docs/errors.md');

const tables: Record<string, Readonly<Record<string, CatalogueEntry>>> = {
  'Answers of the orchestrator': httpErrors,
  'Why a run failed': runErrors,
  Warnings: warningCodes,
  'Rejected messages': rejectionCodes,
  'Close codes': closeCodes,
  'Answers of the runtime': runtimeHttpErrors,
};

for (const [heading, catalogue] of Object.entries(tables)) {
  test(`“${heading}” lists the catalogue’s codes with their numbers and words, and no others`, async (t) => {
    const rows = rowsOf(sectionOf(document, heading));
    const numbered = Object.values(catalogue).some(({ status, close }) => (status ?? close) !== undefined);
    const described = rows.map((cells) => {
      const [code = '', ...rest] = cells;
      const number = numbered ? Number(rest.shift()) : undefined;
      const [title, retry = '', advice] = rest;
      return [codeOf(code), number, title, codeOf(retry), advice];
    });
    const known = Object.entries(catalogue).map(([code, { status, close, title, retry, advice }]) => [
      code,
      status ?? close,
      title,
      retry,
      advice,
    ]);
    t.strictSame(described, known);
  });
}

test('the errors of a run that the runtime is said to tell are in its sources', async (t) => {
  const sources = filesBelow('runtime/src', '.ts').map(readText).join('\n');
  const codes = rowsOf(sectionOf(document, 'Errors of a run in our runtime')).map(([code = '']) =>
    codeOf(code),
  );
  t.ok(codes.length > 10, 'the table has rows');
  for (const code of codes) t.ok(sources.includes(`'${code}'`), code);
  const failure = readText('runtime/src/agent/run-failure.ts');
  const told = [...failure.matchAll(/failed\(\s*'(\w+)'/g)].map(([, code = '']) => code);
  for (const code of told) t.ok(codes.includes(code), `${code} is in the table`);
});
