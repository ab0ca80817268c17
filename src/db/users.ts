import type { CommonQueryMethods } from 'slonik';
import { named, noRow } from './statement.js';

/** Writes the user's row when it is first needed; the id is the token's `sub`. */
export const ensureUser = async (db: CommonQueryMethods, userId: string): Promise<void> => {
  await db.query(
    named('ensure_user', noRow)`INSERT INTO users (id) VALUES (${userId}) ON CONFLICT DO NOTHING`,
  );
};
