/** A change of one file; null = not there. */
export interface Edit {
  path: string;
  before: string | null;
  after: string | null;
}

/**
 * The file tool's call that makes an edit: the smallest replacement of whole lines that is unambiguous. A
 * file that is there is never written whole: the tool that reads does not tell a final newline from none.
 */
export function editCallOf({ path, before, after }: Edit): { name: string; args: Record<string, unknown> } {
  if (after === null) return { name: 'delete', args: { file_path: path } };
  if (before === null || before === '')
    return { name: 'write_file', args: { file_path: path, content: after } };
  const piece = replacedPiece(before, after);
  return { name: 'edit_file', args: { file_path: path, old_string: piece.from, new_string: piece.to } };
}

function replacedPiece(before: string, after: string): { from: string; to: string } {
  const old = before.split('\n');
  const fresh = after.split('\n');
  let head = 0;
  while (head < old.length && head < fresh.length && old[head] === fresh[head]) head += 1;
  let tail = 0;
  const room = Math.min(old.length, fresh.length) - head;
  while (tail < room && old[old.length - 1 - tail] === fresh[fresh.length - 1 - tail]) tail += 1;
  // Lines around it are taken in until the replaced text stands only once in the file.
  for (;;) {
    const from = old.slice(head, old.length - tail).join('\n');
    // Lines that go altogether need one that stays, or their line break would be left behind.
    const whole = fresh.length - tail > head;
    if (whole && from !== '' && before.split(from).length === 2) {
      return { from, to: fresh.slice(head, fresh.length - tail).join('\n') };
    }
    if (head === 0 && tail === 0) return { from: before, to: after };
    if (head > 0) head -= 1;
    if (tail > 0) tail -= 1;
  }
}
