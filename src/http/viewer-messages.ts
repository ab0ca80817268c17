import { limits, type RejectionCode, rejectionCodes } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import type { Attachment, ThreadDirectory } from '../actors/thread-directory.js';
import { requestCancel } from '../db/decisions.js';
import { AppError, toError } from '../errors.js';
import type { Viewer } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Authenticator } from './authenticate.js';
import type { DatabaseGate } from './database-gate.js';
import type { Admission } from './viewer-upgrade.js';

export interface MessageDeps {
  db: CommonQueryMethods;
  gate: DatabaseGate;
  authenticator: Authenticator;
  directory: Pick<ThreadDirectory, 'notice'>;
  log: Logger;
}

/** A viewer's open socket, as far as its messages need it. */
export interface Session {
  admission: Admission;
  viewer: Viewer;
  attachment: Attachment;
  /** Moves the end of the session. */
  prolong(expiresAt: number): void;
}

/** What is wrong with the shape of a message, or null: judged before anything is kept of it. */
export function closeCodeOf(
  message: ArrayBuffer,
  isBinary: boolean,
): { code: number; reason: string } | null {
  if (message.byteLength > limits.viewerMessageBytes) {
    return { code: 1009, reason: `messages may hold ${limits.viewerMessageBytes} bytes` };
  }
  return isBinary ? { code: 4400, reason: 'messages are JSON objects in text' } : null;
}

/** Does what a viewer said. Never rejects. */
export async function hear(deps: MessageDeps, session: Session, text: string): Promise<void> {
  const { admission, viewer, attachment } = session;
  const message = objectOf(text);
  if (message === null) {
    viewer.close(4400, 'messages are JSON objects in text');
    return;
  }
  if (message.type === 'ping') {
    viewer.send('{"event_type":"on_pong","data":{}}');
  } else if (message.type === 'token') {
    await refresh(deps, session, message.token);
  } else if (admission.access !== 'owner') {
    reject(viewer, 'forbidden');
  } else if (message.type === 'cancel') {
    await cancel(deps, session);
  } else if (!attachment.sendToRun(text)) {
    reject(viewer, 'not_streaming');
  }
}

async function refresh(deps: MessageDeps, session: Session, token: unknown): Promise<void> {
  const { admission, viewer } = session;
  try {
    const identity = await deps.authenticator.verify(typeof token === 'string' ? token : '');
    if (identity.userId !== admission.userId) {
      viewer.close(4401, 'the token is of another user');
      return;
    }
    session.prolong(identity.expiresAt);
    viewer.send(
      JSON.stringify({
        event_type: 'on_token_accepted',
        data: { expires_at: new Date(identity.expiresAt).toISOString() },
      }),
    );
  } catch (error) {
    if (error instanceof AppError && error.code !== 'unauthenticated') {
      // Our keys are away: the session lasts as long as its present token.
      rejectWith(viewer, error.code, error.message);
      return;
    }
    viewer.close(4401, 'the token is not valid');
  }
}

/** Written to the row like any other cancel, never told to the runtime from here (guarantees.md 4). */
async function cancel(deps: MessageDeps, { admission, viewer }: Session): Promise<void> {
  const { proposalId, userId, threadId } = admission;
  try {
    const result = await deps.gate(() => requestCancel(deps.db, { proposalId, userId }));
    if (result === 'forbidden') reject(viewer, 'forbidden');
    else if (result === 'not_found' || result === 'not_processing') reject(viewer, 'not_streaming');
    else deps.directory.notice(threadId);
  } catch (thrown) {
    const error = toError(thrown);
    const code = error instanceof AppError ? error.code : 'internal_error';
    if (code === 'internal_error') deps.log.error({ err: error, thread_id: threadId }, 'a cancel failed');
    rejectWith(viewer, code, 'The cancel could not be written down; send it again.');
  }
}

function reject(viewer: Viewer, code: RejectionCode): void {
  const { title, advice } = rejectionCodes[code];
  rejectWith(viewer, code, `${title}. ${advice}`);
}

function rejectWith(viewer: Viewer, code: string, message: string): void {
  viewer.send(JSON.stringify({ event_type: 'on_rejected', data: { code, message } }));
}

function objectOf(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
