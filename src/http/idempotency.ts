import { createHash } from 'node:crypto';
import { limits } from '@ide-orchestrator/protocol';
import { z } from 'zod/v4';
import { beginKey, dropKey, finishKey } from '../db/idempotency.js';
import { AppError, problemOf } from '../errors.js';
import type { RequestHead } from './request-head.js';
import type { Answer, Call, IdempotencyKey, Route } from './route.js';

/** What is kept under a key: enough to give the same answer again. */
const storedAnswer = z.object({ body: z.unknown(), headers: z.record(z.string(), z.string()) });

/** The caller's key, bound to what it was sent with. Throws AppError `validation_failed` for one that is no key. */
export function idempotencyKeyOf(head: RequestHead, route: Route, body: unknown): IdempotencyKey | null {
  const key = head.headers['idempotency-key'];
  if (key === undefined || route.idempotency === 'none') return null;
  if (key.length > limits.idempotencyKeyCharacters || !/^[\x21-\x7e]+$/.test(key)) {
    throw new AppError('validation_failed', 'The header Idempotency-Key cannot be used.', {
      errors: [
        {
          path: 'Idempotency-Key',
          message: `must be 1 to ${limits.idempotencyKeyCharacters} visible ASCII characters`,
        },
      ],
    });
  }
  return {
    key,
    route: `${route.method} ${route.path}`,
    bodyHash: createHash('sha256')
      .update(`${head.path}\n${canonical(body)}`)
      .digest('hex'),
  };
}

/**
 * Answers a call under its key: the first time by doing it, later with the stored answer. Doing and storing are one
 * transaction, so that a crash in between leaves neither. Answers of 500 and more are not stored.
 */
export async function answerOnce(
  deps: { ids: () => string },
  call: Call<unknown, unknown>,
  key: IdempotencyKey,
  instance: string,
  handle: (call: Call<unknown, unknown>) => Promise<Answer>,
): Promise<Answer> {
  const named = { userId: call.identity.userId, route: key.route, key: key.key, id: deps.ids() };
  const begun = await beginKey(call.db, { ...named, bodyHash: key.bodyHash });
  if (begun !== 'new') return replayOf(begun);
  try {
    const { answer, effects } = await call.db.transaction(async (db) => {
      const effects: (() => void)[] = [];
      const inside = { ...call, db, afterCommit: (effect: () => void) => void effects.push(effect) };
      const answer = await settled(() => handle(inside), { instance, requestId: call.requestId });
      const stored = { body: answer.body ?? null, headers: answer.headers ?? {} };
      // Another try has taken the key over: what this one did must not be done twice.
      if (!(await finishKey(db, { ...named, status: answer.status, body: stored }))) throw keyInFlight();
      return { answer, effects };
    });
    for (const effect of effects) effect();
    return answer;
  } catch (error) {
    await dropKey(call.db, named).catch(() => undefined);
    throw error;
  }
}

/** What a key that is not new answers. Throws AppError `idempotency_mismatch` or `idempotency_in_flight`. */
function replayOf(begun: Exclude<Awaited<ReturnType<typeof beginKey>>, 'new'>): Answer {
  if (begun === 'mismatch') throw keyMismatch();
  if (begun === 'in_flight') throw keyInFlight();
  const { body, headers } = storedAnswer.parse(begun.replay.body);
  return { status: begun.replay.status, body, headers };
}

export const keyMismatch = () =>
  new AppError('idempotency_mismatch', 'This Idempotency-Key was sent with another request before.');
export const keyInFlight = () =>
  new AppError(
    'idempotency_in_flight',
    'The first request with this Idempotency-Key is still being answered.',
    {
      retryAfterSeconds: 1,
    },
  );

/** A refusal of the handler is an answer too, and stays the answer of the key; what is not our refusal rolls back. */
async function settled(
  work: () => Promise<Answer>,
  context: { instance: string; requestId: string },
): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    const { status, body } = problemOf(error, context);
    if (status >= 500) throw error;
    return { status, body, headers: { 'Content-Type': 'application/problem+json' } };
  }
}

/** JSON with sorted keys: the same body in another spelling is the same body. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`);
  return `{${members.join(',')}}`;
}
