import { filesBelow, readText } from './documents.js';

const call = /\btest\(\s*(['"`])((?:\\.|(?!\1)[\s\S])*)\1/g;

/**
 * Titles of all tests in the tree, read from their sources. A title that is put together at run time stands with `…`
 * in place of its variable parts, and so it is quoted in the documents.
 */
export function testTitles(): Set<string> {
  const titles = new Set<string>();
  for (const folder of ['test', 'runtime/test', 'protocol/test']) {
    for (const file of filesBelow(folder, '.test.ts')) {
      for (const [, , title = ''] of readText(file).matchAll(call)) {
        titles.add(title.replace(/\$\{[^}]*\}/g, '…').replace(/\\(.)/g, '$1'));
      }
    }
  }
  return titles;
}
