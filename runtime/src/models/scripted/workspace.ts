import type { SeenFile } from './conversation.js';
import type { Edit } from './edit-call.js';

/** The files as the script has read them, and as it wants them. */
export interface Workspace {
  /** The text as of now; null = not there, or not read yet, or too long to be edited. */
  read(path: string): string | null;
  /** Only where it is known that the file is not there. */
  isAbsent(path: string): boolean;
  /** Null deletes. A file that could not be read whole is left alone. */
  write(path: string, text: string | null): void;
  note(text: string): void;
  edits(): Edit[];
  /** What was asked for and has not been read. */
  missing(): string[];
  notes(): string[];
}

/** A workspace on what was read so far. */
export function createWorkspace(seen: ReadonlyMap<string, SeenFile>): Workspace {
  const now = new Map<string, string | null>();
  const asked = new Set<string>();
  const notes = new Set<string>();
  const before = (path: string): string | null => {
    const file = seen.get(path);
    if (file === undefined) asked.add(path);
    if (file === 'unreadable') notes.add(`${path} is too long for this script and was left as it is.`);
    return file === undefined || file === 'unreadable' ? null : file;
  };
  const read = (path: string) => {
    const text = now.get(path);
    return text === undefined ? before(path) : text;
  };
  return {
    read,
    isAbsent: (path) => read(path) === null && (now.has(path) || seen.get(path) === null),
    write(path, text) {
      before(path);
      if (seen.get(path) !== 'unreadable') now.set(path, text);
    },
    note: (text) => void notes.add(text),
    edits: () =>
      [...now]
        .map(([path, after]) => ({ path, before: before(path), after }))
        .filter((edit) => edit.before !== edit.after),
    missing: () => [...asked],
    notes: () => [...notes],
  };
}
