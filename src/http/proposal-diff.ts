import { setImmediate } from 'node:timers/promises';
import type { DiffStatus, ProposalDiff } from '@ide-orchestrator/protocol';
import { structuredPatch } from 'diff';
import { type GeneratedFiles, pathsOf, textOf } from '../db/conflict-rule.js';
import type { DraftRow } from '../db/row-schemas.js';

type FileDiff = ProposalDiff['files'][number];
type Hunk = FileDiff['hunks'][number];

/** One request may hold the loop this long per file, and this long in all; beyond, a file is told as replaced. */
const fileMs = 50;
const totalMs = 500;
const contextLines = 3;

/** Unified hunks of each file of the proposal against the draft of now, in path order. */
export async function diffOf(compared: {
  baseHashes: Readonly<Record<string, string>>;
  draft: DraftRow | null;
  generatedFiles: GeneratedFiles | null;
}): Promise<FileDiff[]> {
  const draftFiles = compared.draft?.files ?? {};
  const generated = compared.generatedFiles ?? {};
  const draftHashes = Object.fromEntries(
    Object.entries(draftFiles).map(([path, file]) => [path, file.sha256]),
  );
  const files: FileDiff[] = [];
  let spentMs = 0;
  for (const { path, draft, proposal, state } of pathsOf(compared.baseHashes, draftHashes, generated)) {
    const status = statusOf(state, draft, proposal);
    if (status === 'unchanged') {
      files.push({ path, status, hunks: [] });
      continue;
    }
    const file = generated[path] ?? null;
    const startedAt = performance.now();
    const budget = Math.min(fileMs, totalMs - spentMs);
    files.push({
      path,
      status,
      hunks: hunksOf(draftFiles[path]?.content ?? null, file === null ? null : textOf(file), budget),
    });
    spentMs += performance.now() - startedAt;
    // Frames of other threads pass between two files.
    await setImmediate();
  }
  return files;
}

function statusOf(state: string, draft: string | null, proposal: string | null): DiffStatus {
  if (state === 'conflict') return 'conflict';
  if (state !== 'apply') return 'unchanged';
  if (draft === null) return 'added';
  return proposal === null ? 'removed' : 'modified';
}

/** Null = there is no such file on this side. */
function hunksOf(before: string | null, after: string | null, budgetMs: number): Hunk[] {
  const patch =
    budgetMs > 0
      ? structuredPatch('', '', before ?? '', after ?? '', '', '', {
          context: contextLines,
          timeout: budgetMs,
        })
      : undefined;
  if (patch === undefined) return replaced(before ?? '', after ?? '');
  return patch.hunks.map((hunk) => ({
    old_start: hunk.oldStart,
    old_lines: hunk.oldLines,
    new_start: hunk.newStart,
    new_lines: hunk.newLines,
    lines: hunk.lines,
  }));
}

/** A true diff, only not the shortest: everything goes, everything comes. */
function replaced(before: string, after: string): Hunk[] {
  const old = linesOf(before);
  const now = linesOf(after);
  return [
    {
      old_start: old.length === 0 ? 0 : 1,
      old_lines: old.length,
      new_start: now.length === 0 ? 0 : 1,
      new_lines: now.length,
      lines: [...marked('-', old, before), ...marked('+', now, after)],
    },
  ];
}

function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function marked(sign: string, lines: string[], text: string): string[] {
  const marks = lines.map((line) => `${sign}${line}`);
  return text === '' || text.endsWith('\n') ? marks : [...marks, '\\ No newline at end of file'];
}
