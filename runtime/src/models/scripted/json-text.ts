/**
 * Edits of JSON that leave every byte alone that they are not about: no parsing and printing anew, which
 * would reformat a person's file.
 */

type Key = string | number;

interface Span {
  start: number;
  end: number;
  members?: { key: string; start: number; value: Span }[];
  items?: Span[];
}

/** Replaces the value at a path. The path must exist. */
export function withValue(text: string, path: readonly Key[], value: unknown): string {
  const { start, end } = spanAt(text, path);
  const raw = text.slice(start, end);
  const old: unknown = JSON.parse(raw);
  if (old === value) return text;
  const fresh =
    typeof old === 'string' && typeof value === 'string'
      ? stringChanged(raw, old, value)
      : JSON.stringify(value);
  return splice(text, start, end, fresh);
}

/** Keeps the way in which the rest of a string is escaped when it only grows at its end, or loses a piece. */
function stringChanged(raw: string, old: string, value: string): string {
  if (value.startsWith(old)) return raw.slice(0, -1) + JSON.stringify(value.slice(old.length)).slice(1);
  let same = 0;
  while (same < value.length && old[same] === value[same]) same += 1;
  const piece = JSON.stringify(old.slice(same, same + old.length - value.length)).slice(1, -1);
  const at = piece === '' ? -1 : raw.lastIndexOf(piece);
  const shorter = raw.slice(0, at) + raw.slice(at + piece.length);
  return at > 0 && JSON.parse(shorter) === value ? shorter : JSON.stringify(value);
}

/** Appends to the array at a path, in the style of its other items. */
export function withItem(text: string, path: readonly Key[], value: unknown): string {
  const { start, end, items = [] } = spanAt(text, path);
  const last = items.at(-1);
  const before = items.at(-2);
  if (last !== undefined) {
    const lead =
      before === undefined
        ? text.slice(start + 1, last.start)
        : text.slice(before.end, last.start).replace(',', '');
    // One item says nothing about the space between two; the rest of the text does.
    const glue = lead === '' && before === undefined && /":\s/.test(text) ? ' ' : lead;
    return splice(text, last.end, last.end, `,${glue}${printed(value, glue, text)}`);
  }
  const outer = lineIndent(text, start);
  const multiline = /[[{]\s*\n/.test(text);
  const glue = multiline ? `\n${outer}${unitOf(text)}` : '';
  const closing = multiline ? `\n${outer}` : '';
  return splice(text, start, end, `[${glue}${printed(value, glue, text)}${closing}]`);
}

/** Takes an item out of the array at a path; the exact opposite of appending it. */
export function withoutItem(text: string, path: readonly Key[], index: number): string {
  const { start, end, items = [] } = spanAt(text, path);
  const item = items[index];
  if (item === undefined) return text;
  if (items.length === 1) return splice(text, start, end, '[]');
  const before = items[index - 1];
  const after = items[index + 1];
  if (before !== undefined) return splice(text, before.end, item.end, '');
  return after === undefined ? text : splice(text, item.start, after.start, '');
}

function printed(value: unknown, glue: string, text: string): string {
  const newline = glue.lastIndexOf('\n');
  if (newline < 0) return JSON.stringify(value);
  const indent = glue.slice(newline + 1);
  return JSON.stringify(value, null, unitOf(text)).replaceAll('\n', `\n${indent}`);
}

function unitOf(text: string): string {
  return /[[{]\n([ \t]+)/.exec(text)?.[1] ?? '  ';
}

function lineIndent(text: string, at: number): string {
  const line = text.slice(text.lastIndexOf('\n', at - 1) + 1, at);
  return /^[ \t]*/.exec(line)?.[0] ?? '';
}

function splice(text: string, start: number, end: number, insert: string): string {
  return text.slice(0, start) + insert + text.slice(end);
}

function spanAt(text: string, path: readonly Key[]): Span {
  let span = spanOf(text, skipSpace(text, 0));
  for (const key of path) {
    const next =
      typeof key === 'number'
        ? span.items?.[key]
        : span.members?.findLast((member) => member.key === key)?.value;
    if (next === undefined) throw new Error(`There is nothing at ${path.join('.')}.`);
    span = next;
  }
  return span;
}

/** Where a value begins and ends; the text is known to be valid JSON. */
function spanOf(text: string, start: number): Span {
  const first = text.charAt(start);
  if (first === '"') return { start, end: stringEnd(text, start) };
  if (first !== '{' && first !== '[') {
    const length = /^[^\s,\]}]+/.exec(text.slice(start, start + 400))?.[0].length ?? 1;
    return { start, end: start + length };
  }
  const members: { key: string; start: number; value: Span }[] = [];
  const items: Span[] = [];
  let at = skipSpace(text, start + 1);
  while (text.charAt(at) !== '}' && text.charAt(at) !== ']') {
    if (first === '{') {
      const keyEnd = stringEnd(text, at);
      const value = spanOf(text, skipSpace(text, skipSpace(text, keyEnd) + 1));
      members.push({ key: JSON.parse(text.slice(at, keyEnd)) as string, start: at, value });
      at = skipSpace(text, value.end);
    } else {
      const item = spanOf(text, at);
      items.push(item);
      at = skipSpace(text, item.end);
    }
    if (text.charAt(at) === ',') at = skipSpace(text, at + 1);
    if (at >= text.length) break;
  }
  return first === '{' ? { start, end: at + 1, members } : { start, end: at + 1, items };
}

function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text.charAt(at) !== '"') at += text.charAt(at) === '\\' ? 2 : 1;
  return at + 1;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (at < text.length && /\s/.test(text.charAt(at))) at += 1;
  return at;
}
