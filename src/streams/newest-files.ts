import {
  isStorableText,
  limits,
  pathFault,
  storableText,
  utf8Length,
  type Warning,
  type WireFile,
  type WireFiles,
  wireFile,
} from '@ide-orchestrator/protocol';
import { parseFrame } from './decode-frame.js';
import type { NumberedFrame } from './replay-window.js';

/** Remembers the bytes of the newest state update that carries files; parses them once, at the end. */
export interface NewestFiles {
  take(frame: Buffer, number: number): void;
  /** The frame, for the stored last frames. */
  frame(): NumberedFrame | null;
  /** Its `data.files`; null where no state update had any. */
  files(): Record<string, unknown> | null;
  /** Its number belongs to an epoch that is over: the files stay. */
  unnumber(): void;
  clear(): void;
}

const FILES_KEY = Buffer.from('"files"');
/** How the key may hide: a name can be written in escapes. */
const ESCAPE = Buffer.from('\\u00');
/** A frame in the usual form says in its head that it has files. */
const USUAL = Buffer.from(',"event_type":"on_state_update","data":{"files":{');
const USUAL_HEAD = '{"seq":'.length + 16 + USUAL.length;

export function createNewestFiles(): NewestFiles {
  let newest: NumberedFrame | null = null;
  return {
    take(frame, number) {
      if (!frame.includes(FILES_KEY) && !frame.includes(ESCAPE)) return;
      if (!frame.subarray(0, USUAL_HEAD).includes(USUAL)) {
        // A frame that merely mentions files does not take the place of one that has them. One that cannot be
        // read does: the files of before are not the newest, and the end finds that out.
        const value = parseFrame(frame);
        if (value !== null && filesOf(value) === null) return;
      }
      newest = { number, bytes: Buffer.from(frame) };
    },
    frame: () => newest,
    files: () => (newest === null ? null : filesOf(parseFrame(newest.bytes))),
    unnumber() {
      if (newest !== null) newest = { number: 0, bytes: newest.bytes };
    },
    clear() {
      newest = null;
    },
  };
}

function filesOf(frame: Record<string, unknown> | null): Record<string, unknown> | null {
  const data = frame?.data;
  if (typeof data !== 'object' || data === null) return null;
  const files = (data as Record<string, unknown>).files;
  return typeof files === 'object' && files !== null && !Array.isArray(files)
    ? (files as Record<string, unknown>)
    : null;
}

export interface AcceptedFiles {
  files: WireFiles;
  warnings: Warning[];
}

/**
 * What of a run's files can be stored: paths that are safe, content that is text within the limits. What is
 * refused is named in `warnings`; the rest goes on.
 */
export function acceptFiles(
  given: Record<string, unknown>,
  allowed: { fileBytes: number; files: number } = limits,
): AcceptedFiles {
  const files: WireFiles = {};
  const warnings: Warning[] = [];
  let count = 0;
  for (const [path, value] of Object.entries(given)) {
    const refused = refusal(path, value, allowed.fileBytes);
    if (refused !== null) {
      warnings.push({ ...refused, path: printable(path) });
      continue;
    }
    if (++count > allowed.files) {
      warnings.push({ code: 'too_many_files', path, message: `more than ${allowed.files} files` });
      continue;
    }
    files[path] = value === null ? null : storableFile(value as WireFile);
  }
  return { files, warnings };
}

function printable(path: string): string {
  return storableText(path.slice(0, limits.pathCharacters));
}

/** The file as it was sent, less what is no text, number or flag beside the lines: PostgreSQL refuses U+0000 anywhere. */
function storableFile(file: WireFile): WireFile {
  const plain: WireFile = { content: file.content };
  for (const [name, value] of Object.entries(file)) {
    if (name === 'content' || !isStorableText(name)) continue;
    if (typeof value === 'string') plain[name] = storableText(value);
    else if (typeof value !== 'object' || value === null) plain[name] = value;
  }
  return plain;
}

function refusal(path: string, value: unknown, fileBytes: number): Warning | null {
  if (!isStorableText(path))
    return { code: 'invalid_content', message: 'the path holds text that cannot be stored' };
  const fault = pathFault(path);
  if (fault !== null) return { code: 'unsafe_path', message: `the path ${fault}` };
  if (value === null) return null;
  const file = wireFile.safeParse(value);
  if (!file.success) return { code: 'invalid_file', message: 'the file is not a list of lines' };
  let bytes = file.data.content.length - 1;
  for (const line of file.data.content) {
    if (!isStorableText(line)) {
      return { code: 'invalid_content', message: 'the file holds U+0000 or a lone surrogate' };
    }
    bytes += utf8Length(line);
  }
  if (bytes > fileBytes) return { code: 'oversized_file', message: `the file is over ${fileBytes} bytes` };
  return null;
}
