import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { named, noRow } from './statement.js';

/** Stores a one-use ticket by its hash; the ticket itself is never stored. `expiresAt` is RFC 3339. */
export const createTicket = async (
  db: CommonQueryMethods,
  input: {
    readonly hash: string;
    readonly userId: string;
    readonly threadId: string;
    readonly expiresAt: string;
  },
): Promise<void> => {
  await db.query(named('create_ticket', noRow)`
    INSERT INTO tickets (hash, user_id, thread_id, expires_at)
    VALUES (${input.hash}, ${input.userId}, ${input.threadId}, ${input.expiresAt}::timestamptz)`);
};

/** Takes the ticket: of any number of tries, on any replica, one succeeds. Null = unknown, used or expired. */
export const redeemTicket = (
  db: CommonQueryMethods,
  input: { readonly hash: string },
): Promise<{ userId: string; threadId: string } | null> =>
  db.maybeOne(named('redeem_ticket', z.object({ userId: z.string(), threadId: z.string() }))`
    DELETE FROM tickets WHERE hash = ${input.hash} AND expires_at > now()
    RETURNING user_id AS "userId", thread_id AS "threadId"`);

/** Removes expired tickets; answers how many. */
export const purgeTickets = async (db: CommonQueryMethods): Promise<number> =>
  (await db.query(named('purge_tickets', noRow)`DELETE FROM tickets WHERE expires_at <= now()`)).rowCount;
