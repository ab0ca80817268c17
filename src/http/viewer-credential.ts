import type { CommonQueryMethods } from 'slonik';
import { AppError } from '../errors.js';
import type { Authenticator, Identity } from './authenticate.js';
import type { RequestHead } from './request-head.js';
import { redeemed } from './tickets.js';

/** Where the viewer's proof is, in the order in which they count; the first one present decides, whatever it is worth. */
export type Credential =
  | { kind: 'ticket'; secret: string }
  | { kind: 'header'; value: string }
  | { kind: 'token'; token: string }
  | { kind: 'none' };

/** Finds the proof of an upgrade. */
export function credentialOf(head: RequestHead, query: URLSearchParams): Credential {
  const ticket = query.get('ticket');
  if (ticket !== null) return { kind: 'ticket', secret: ticket };
  if (head.headers.authorization !== undefined) return { kind: 'header', value: head.headers.authorization };
  const [first, second] = protocolsOf(head);
  if (first === 'bearer') return { kind: 'token', token: second ?? '' };
  const token = query.get('token');
  return token === null ? { kind: 'none' } : { kind: 'token', token };
}

/** The sub-protocols that a client offers. One that offered any fails unless one of them is answered: `bearer`, never the token. */
export function protocolsOf(head: RequestHead): string[] {
  return (head.headers['sec-websocket-protocol'] ?? '').split(',').map((each) => each.trim());
}

/** Proves it. Throws AppError `unauthenticated`. A ticket is used up by this, also where it was for another thread. */
export async function provenBy(
  deps: { authenticator: Authenticator; db: CommonQueryMethods },
  credential: Credential,
  threadId: string,
): Promise<Identity> {
  switch (credential.kind) {
    case 'header':
      return deps.authenticator.verifyHeader(credential.value);
    case 'token':
      return deps.authenticator.verify(credential.token);
    case 'none':
      throw new AppError('unauthenticated', 'Send a ticket or a token.');
    case 'ticket': {
      const ticket = await redeemed(deps.db, credential.secret);
      if (ticket === null || ticket.threadId !== threadId) {
        throw new AppError('unauthenticated', 'The ticket is unknown, used or expired.');
      }
      return { userId: ticket.userId, expiresAt: ticket.expiresAt };
    }
  }
}
