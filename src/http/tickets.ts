import { createHash } from 'node:crypto';
import { createTicketRequest, ticket } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import { findThreadFor } from '../db/proposals.js';
import { createTicket, redeemTicket } from '../db/tickets.js';
import { AppError } from '../errors.js';
import { type Route, route } from './route.js';

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** One-use tickets for sockets, for pages that cannot send a header with them. */
export function ticketRoutes(deps: {
  now: () => number;
  random: (bytes: number) => Buffer;
  ticketTtlMs: number;
}): Route[] {
  return [
    route({
      method: 'POST',
      path: '/api/ws/tickets',
      name: 'createTicket',
      summary: 'A ticket for one socket on one thread',
      tag: 'tickets',
      body: createTicketRequest,
      answers: { 201: ticket },
      errors: ['not_found'],
      // A key would have to keep the ticket readable in the database; whoever lost the answer asks for another one.
      idempotency: 'none',
      async handle({ db, identity, body }) {
        const threadId = body.thread_id.toLowerCase();
        const thread = uuid.test(threadId)
          ? await findThreadFor(db, { threadId, userId: identity.userId })
          : null;
        if (thread === null) throw new AppError('not_found', 'There is no such thread.');
        // How long the socket may stay is part of the ticket, and so of its hash: nobody can prolong it.
        const secret = `${deps.random(32).toString('base64url')}.${identity.expiresAt.toString(36)}`;
        const expiresAt = new Date(Math.min(deps.now() + deps.ticketTtlMs, identity.expiresAt)).toISOString();
        await createTicket(db, { hash: hashOf(secret), userId: identity.userId, threadId, expiresAt });
        return { status: 201, body: { ticket: secret, expires_at: expiresAt } };
      },
    }),
  ];
}

/** Takes a ticket: whose it is, for which thread, and until when its session may last. Null = unknown, used or expired. */
export async function redeemed(
  db: CommonQueryMethods,
  secret: string,
): Promise<{ userId: string; threadId: string; expiresAt: number } | null> {
  const expiresAt = Number.parseInt(/^[\w-]{43}\.([0-9a-z]{1,11})$/.exec(secret)?.[1] ?? '', 36);
  if (Number.isNaN(expiresAt)) return null;
  const found = await redeemTicket(db, { hash: hashOf(secret) });
  return found === null ? null : { ...found, expiresAt };
}

function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}
