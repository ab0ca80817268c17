import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Top of the clone; this file runs from `dist/test/docs`. */
export const root = fileURLToPath(new URL('../../../', import.meta.url));

export const readText = (name: string): string => fs.readFileSync(path.join(root, name), 'utf8');
export const isThere = (name: string): boolean => fs.existsSync(path.join(root, name));

/** What stands below a heading, up to the next one of the same or a higher level; throws where there is none. */
export function sectionOf(document: string, heading: string): string {
  const lines = document.split('\n');
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '') === heading);
  if (start < 0) throw new Error(`There is no heading "${heading}".`);
  const level = /^#+/.exec(lines[start] ?? '')?.[0].length ?? 1;
  const length = lines.slice(start + 1).findIndex((line) => {
    const marks = /^(#+) /.exec(line)?.[1];
    return marks !== undefined && marks.length <= level;
  });
  return lines.slice(start + 1, length < 0 ? undefined : start + 1 + length).join('\n');
}

/** The cells of every table row in a text, without the heads. */
export function rowsOf(text: string): string[][] {
  const rows: string[][] = [];
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) continue;
    const cells = line
      .slice(1, line.lastIndexOf('|'))
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim().replaceAll('\\|', '|'));
    // The line of dashes says that the row before it was the head.
    if (cells.every((cell) => /^:?-+:?$/.test(cell))) rows.pop();
    else rows.push(cells);
  }
  return rows;
}

/** The text between the first two backticks; the whole text where there are none. */
export const codeOf = (text: string): string => /`([^`]+)`/.exec(text)?.[1] ?? text;

/** Files below a folder whose names end so, as paths from the top of the clone. */
export function filesBelow(folder: string, ending: string): string[] {
  if (!isThere(folder)) return [];
  return fs
    .readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending) && !/(^|[\\/])(node_modules|dist)[\\/]/.test(name))
    .map((name) => path.posix.join(folder, name.replaceAll('\\', '/')))
    .sort();
}
