import { planPath, requirementsPath } from './layout.js';
import { withNumbered } from './list-text.js';
import type { Wish } from './wish.js';
import type { Workspace } from './workspace.js';

/** The requirement that quotes a wish. */
export function requirementOf(wish: Wish): string {
  return `"${wish.text}"`;
}

/** The plan's step for a wish. */
export function planStepOf(wish: Wish): string {
  return `Work out and fulfil: "${wish.text}"`;
}

/** What a script can do with any wish: it becomes a requirement, word for word, and a step of the plan. */
export function noteWish(wish: Wish, files: Workspace): void {
  noteIn(files, requirementsPath, '# Requirements', requirementOf(wish));
  noteIn(files, planPath, '# Plan', planStepOf(wish));
}

function noteIn(files: Workspace, path: string, title: string, entry: string): void {
  const text = files.read(path);
  if (text !== null) files.write(path, withNumbered(text, entry, 'Added'));
  else if (files.isAbsent(path)) files.write(path, `${title}\n\n1. ${entry}\n`);
}
