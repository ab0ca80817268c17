/**
 * Lists in Markdown: one entry is added or taken out, everything else stays as it is. Adding and then
 * removing gives the same bytes back.
 */

/** Where there is no list to add to, one begins below this heading, so that its removal is exact as well. */
const addedHeading = (title: string) => `\n\n## ${title}\n\n`;

/** Adds an entry behind the last numbered one, with the next number; unchanged where it is there already. */
export function withNumbered(text: string, entry: string, title: string): string {
  if (numberedLine(text, entry) !== null) return text;
  const lines = text.split('\n');
  const last = lines.findLastIndex((line) => /^\d+\. /.test(line));
  if (last < 0) return withSection(text, `1. ${entry}`, title);
  const number = Number.parseInt(lines[last] ?? '0', 10) + 1;
  let at = last + 1;
  // The text of an entry may go on in indented lines.
  while (/^\s+\S/.test(lines[at] ?? '')) at += 1;
  lines.splice(at, 0, `${number}. ${entry}`);
  return lines.join('\n');
}

/** Takes a numbered entry out and closes the gap in the numbers that follow it. */
export function withoutNumbered(text: string, entry: string, title: string): string {
  const whole = withoutSection(text, `1. ${entry}`, title);
  if (whole !== null) return whole;
  const at = numberedLine(text, entry);
  if (at === null) return text;
  const lines = text.split('\n');
  let gap = Number.parseInt(lines[at] ?? '0', 10);
  lines.splice(at, 1);
  for (let next = at; next < lines.length; next += 1) {
    const number = /^(\d+)\. /.exec(lines[next] ?? '')?.[1];
    if (number === undefined) continue;
    if (Number(number) !== gap + 1) break;
    lines[next] = `${gap}${(lines[next] ?? '').slice(number.length)}`;
    gap += 1;
  }
  return lines.join('\n');
}

/** Adds a bullet behind the last one below a heading that matches; unchanged where it is there already. */
export function withBullet(text: string, entry: string, heading: RegExp, title: string): string {
  const line = `- ${entry}`;
  const lines = text.split('\n');
  if (lines.includes(line)) return text;
  const last = lastBullet(lines, heading);
  if (last === null) return withSection(text, line, title);
  lines.splice(last + 1, 0, line);
  return lines.join('\n');
}

/** Takes a bullet out. */
export function withoutBullet(text: string, entry: string, title: string): string {
  const line = `- ${entry}`;
  const whole = withoutSection(text, line, title);
  if (whole !== null) return whole;
  const lines = text.split('\n');
  const at = lines.lastIndexOf(line);
  if (at < 0) return text;
  lines.splice(at, 1);
  return lines.join('\n');
}

function numberedLine(text: string, entry: string): number | null {
  const at = text.split('\n').findIndex((line) => line.replace(/^\d+\. /, '') === entry && /^\d/.test(line));
  return at < 0 ? null : at;
}

function lastBullet(lines: readonly string[], heading: RegExp): number | null {
  const from = lines.findIndex((line) => /^#+ /.test(line) && heading.test(line));
  if (from < 0) return null;
  const length = lines.slice(from + 1).findIndex((line) => /^#+ /.test(line));
  const to = length < 0 ? lines.length : from + 1 + length;
  const at = lines.slice(from, to).findLastIndex((line) => /^- /.test(line));
  return at < 0 ? null : from + at;
}

/** Before the white space that the file ends with, which stays. */
function withSection(text: string, line: string, title: string): string {
  const end = text.trimEnd().length;
  return `${text.slice(0, end)}${addedHeading(title)}${line}${text.slice(end)}`;
}

/** The section goes when the entry was all that it held. */
function withoutSection(text: string, line: string, title: string): string | null {
  const section = `${addedHeading(title)}${line}`;
  const at = text.lastIndexOf(section);
  if (at < 0) return null;
  const rest = text.slice(at + section.length);
  return /^\s*(\n#|$)/.test(rest) ? text.slice(0, at) + rest : null;
}
