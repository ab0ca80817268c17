import { z } from 'zod/v4';
import { limits } from './limits.js';

/** U+0000 or half of a surrogate pair: no PostgreSQL text and no UTF-8 holds them. */
export function isStorableText(text: string): boolean {
  return !text.includes('\u0000') && text.isWellFormed();
}

/** Replaces what `isStorableText` refuses by U+FFFD, for text that is kept although it is broken. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\u0000', '\uFFFD');
}

/** Why a path is unsafe, or null where it is a plain absolute path of a specification file. */
export function pathFault(path: string): string | null {
  if (!path.startsWith('/')) return 'must begin with /';
  if (path.length > limits.pathCharacters) return `must be at most ${limits.pathCharacters} characters`;
  if (path.length < 2 || path.endsWith('/')) return 'must name a file';
  if (path.includes('\\')) return 'must not contain a backslash';
  if (hasControlCharacter(path)) return 'must not contain control characters';
  for (const part of path.slice(1).split('/')) {
    if (part === '') return 'must not contain //';
    if (part === '.' || part === '..') return 'must not contain . or .. as a part';
  }
  return null;
}

function hasControlCharacter(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit < 0x20 || unit === 0x7f) return true;
  }
  return false;
}

/** Text that can be stored; the message names the rule. */
export const storable = z.string().refine(isStorableText, 'must not contain U+0000 or a lone surrogate');

export const filePath = storable
  .min(1)
  .max(limits.pathCharacters)
  .superRefine((path, context) => {
    const fault = pathFault(path);
    if (fault !== null) context.addIssue({ code: 'custom', message: fault });
  })
  .meta({ description: 'Absolute path of a file, e.g. /THE_SPEC/constitution.md' });

/** Bytes of a text in UTF-8, without encoding it. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (unit >= 0xd800 && unit <= 0xdbff) {
      bytes += 4;
      index++;
    } else bytes += 3;
  }
  return bytes;
}

export const fileContent = storable.refine(
  (text) => utf8Length(text) <= limits.fileBytes,
  `must be at most ${limits.fileBytes} bytes`,
);

export const uuid = z.uuid();
export const timestamp = z.iso.datetime({ offset: true }).meta({ description: 'RFC 3339, UTC' });
export const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
