import { z } from 'zod/v4';
import { AppError } from '../errors.js';

/** Where a list by creation time goes on. */
export interface TimeCursor {
  createdAt: string;
  id: string;
}

// What PostgreSQL cannot read (year 0, an offset of 16 hours, an integer of 8 bytes) must not come as far as to it.
const timeCursor = z.tuple([z.iso.datetime().refine((text) => !text.startsWith('0000')), z.uuid()]);
const numberCursor = z.tuple([z.int().min(1).max(2_147_483_647)]);

/** Opaque text of a place in a list. */
function cursorOf(place: unknown): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

/** Reads `cursorOf` back; throws AppError `validation_failed` for anything that we did not make. */
export function timeCursorOf(cursor: string | undefined): TimeCursor | null {
  if (cursor === undefined) return null;
  const [createdAt, id] = placeOf(cursor, timeCursor);
  return { createdAt, id };
}

export function numberCursorOf(cursor: string | undefined): number | null {
  return cursor === undefined ? null : placeOf(cursor, numberCursor)[0];
}

function placeOf<T extends z.ZodType>(cursor: string, schema: T): z.output<T> {
  let place: unknown;
  try {
    place = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
  } catch {
    place = null;
  }
  const result = schema.safeParse(place);
  if (result.success) return result.data;
  throw new AppError('validation_failed', 'The cursor is not one that this list gave.', {
    errors: [{ path: 'cursor', message: 'is not a cursor of this list' }],
  });
}

/** Cuts one row more than asked for into a page and the place of the next. */
export function pageOfRows<Row, Item>(
  rows: readonly Row[],
  limit: number,
  shape: { item: (row: Row) => Item; place: (row: Row) => unknown },
): { items: Item[]; next_cursor: string | null } {
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  return {
    items: shown.map(shape.item),
    next_cursor: rows.length > limit && last !== undefined ? cursorOf(shape.place(last)) : null,
  };
}
