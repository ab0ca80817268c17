import type { ThreadRow } from '../db/row-schemas.js';

/** Take-overs from dead replicas in a row after which another one means that the thread brings them down. */
const HARMLESS_TAKE_OVERS = 3;

/** Whether this take-over is the fourth in a row: then nobody runs the thread again (`guarantees.md` 13). */
export const isPoisoned = (row: Pick<ThreadRow, 'takenOver'>): boolean => row.takenOver > HARMLESS_TAKE_OVERS;
