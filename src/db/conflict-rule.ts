import { createHash } from 'node:crypto';

/** A sha256 in hex, or null for "none": absent or deleted. */
export type Hash = string | null;

export type PathState = 'unchanged' | 'already' | 'apply' | 'conflict';

/** A file as the runtime sends it; its text is its lines joined by `\n`. */
export interface WireFile {
  readonly content: readonly string[];
  readonly [key: string]: unknown;
}

/** `generated_files` as stored: null = the run deleted the file. */
export type GeneratedFiles = Readonly<Record<string, WireFile | null>>;

/** sha256 over the UTF-8 text, in hex. */
export const sha256Of = (text: string): string => createHash('sha256').update(text, 'utf8').digest('hex');

/** The text of a file in the form of the wire. */
export const textOf = (file: WireFile): string => file.content.join('\n');

/**
 * What approving one path would do (`protocol.md` 2, "Conflict"). It compares content, never revisions: those
 * overwrite and resurrect silently (`guarantees.md` 6).
 */
export const classify = (base: Hash, draft: Hash, proposal: Hash): PathState => {
  if (proposal === base) return 'unchanged';
  if (proposal === draft) return 'already';
  if (draft === base) return 'apply';
  return 'conflict';
};

export interface PathComparison {
  readonly path: string;
  readonly base: Hash;
  readonly draft: Hash;
  readonly proposal: Hash;
  readonly state: PathState;
}

/** Compares every path that `generated` mentions, in path order; a path that it does not mention was not changed. */
export const pathsOf = (
  baseHashes: Readonly<Record<string, string>>,
  draftHashes: Readonly<Record<string, string>>,
  generated: GeneratedFiles,
): PathComparison[] =>
  Object.keys(generated)
    .sort()
    .map((path) => {
      const file = generated[path] ?? null;
      const base = baseHashes[path] ?? null;
      const draft = draftHashes[path] ?? null;
      const proposal = file === null ? null : sha256Of(textOf(file));
      return { path, base, draft, proposal, state: classify(base, draft, proposal) };
    });
