import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { jsonOf, named, noRow } from './statement.js';

interface KeyName {
  readonly userId: string;
  readonly route: string;
  readonly key: string;
}

const keyRow = z.object({
  bodyHash: z.string(),
  proposalId: z.string().nullable(),
  status: z.number().nullable(),
  body: z.unknown(),
  answered: z.boolean(),
  old: z.boolean(),
});

/** Seconds after which a key of a refinement that nobody answered is answered from the row (`guarantees.md` 8). */
const PROPOSAL_KEY_SECONDS = 10;
/** Seconds after which the work under any other key is taken for dead. */
const ABANDONED_SECONDS = 60;

const readKey = (db: CommonQueryMethods, name: KeyName, seconds: number) =>
  db.maybeOne(named('read_key', keyRow)`
    SELECT body_hash AS "bodyHash", proposal_id AS "proposalId", status, body, answered_at IS NOT NULL AS answered,
           created_at < now() - ${seconds} * interval '1 second' AS old
    FROM idempotency_keys
    WHERE user_id = ${name.userId} AND route = ${name.route} AND key = ${name.key}`);

/** What a repeat of a start with this key gets: the proposal that the key names, a refusal, or `free` = nothing yet. */
export const findProposalKey = async (
  db: CommonQueryMethods,
  input: KeyName & { readonly bodyHash: string },
): Promise<
  | { kind: 'free' }
  | { kind: 'mismatch' }
  | { kind: 'in_flight' }
  /** Not answered, but old: whoever should have answered may still be about to free it. */
  | { kind: 'named'; proposalId: string; answered: boolean }
> => {
  const existing = await readKey(db, input, PROPOSAL_KEY_SECONDS);
  if (!existing?.proposalId) return { kind: 'free' };
  if (existing.bodyHash !== input.bodyHash) return { kind: 'mismatch' };
  const { answered, old, proposalId } = existing;
  return answered || old ? { kind: 'named', proposalId, answered } : { kind: 'in_flight' };
};

/** The request that started the proposal was answered: from now on a repeat gets the same from the row. */
export const answerProposalKey = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<void> => {
  await db.query(named('answer_proposal_key', noRow)`
    UPDATE idempotency_keys SET answered_at = now() WHERE proposal_id = ${input.proposalId} AND answered_at IS NULL`);
};

/**
 * Claims the key for one try, `id`. `new` = work, then {@link finishKey} or {@link dropKey}. A key whose work has not
 * been answered for 60 s goes to the next try.
 */
export const beginKey = async (
  db: CommonQueryMethods,
  input: KeyName & { readonly bodyHash: string; readonly id: string },
): Promise<'new' | { replay: { status: number; body: unknown } } | 'mismatch' | 'in_flight'> => {
  const claimed = await db.query(named('begin_key', noRow)`
    INSERT INTO idempotency_keys AS k (user_id, route, key, body_hash, holder)
    VALUES (${input.userId}, ${input.route}, ${input.key}, ${input.bodyHash}, ${input.id})
    ON CONFLICT (user_id, route, key) DO UPDATE SET holder = EXCLUDED.holder, created_at = now()
    WHERE k.answered_at IS NULL AND k.proposal_id IS NULL AND k.body_hash = EXCLUDED.body_hash
      AND k.created_at < now() - ${ABANDONED_SECONDS} * interval '1 second'`);
  if (claimed.rowCount === 1) return 'new';
  const existing = await readKey(db, input, ABANDONED_SECONDS);
  if (!existing) return 'in_flight';
  if (existing.bodyHash !== input.bodyHash) return 'mismatch';
  if (!existing.answered || existing.status === null) return 'in_flight';
  return { replay: { status: existing.status, body: existing.body ?? null } };
};

/**
 * Stores the answer; inside the transaction of the work where there is one. False where `id` does not hold the key any
 * more: the work is another try's.
 */
export const finishKey = async (
  db: CommonQueryMethods,
  input: KeyName & { readonly id: string; readonly status: number; readonly body: unknown },
): Promise<boolean> =>
  (
    await db.query(named('finish_key', noRow)`
    UPDATE idempotency_keys SET status = ${input.status}, body = ${jsonOf(input.body)}::jsonb, answered_at = now()
    WHERE user_id = ${input.userId} AND route = ${input.route} AND key = ${input.key} AND holder = ${input.id}`)
  ).rowCount === 1;

/**
 * Frees the key after an answer that is not stored (500 and above), where `id` still holds it. One whose commit was made
 * while its own answer was lost is kept: the work is done.
 */
export const dropKey = async (
  db: CommonQueryMethods,
  input: KeyName & { readonly id: string },
): Promise<void> => {
  await db.query(named('drop_key', noRow)`
    DELETE FROM idempotency_keys
    WHERE user_id = ${input.userId} AND route = ${input.route} AND key = ${input.key} AND holder = ${input.id}
      AND answered_at IS NULL`);
};

/** Removes keys older than `olderThanMs`; answers how many. */
export const purgeKeys = async (
  db: CommonQueryMethods,
  input: { readonly olderThanMs: number },
): Promise<number> =>
  (
    await db.query(named('purge_keys', noRow)`
      DELETE FROM idempotency_keys WHERE created_at < now() - ${input.olderThanMs} * interval '1 millisecond'`)
  ).rowCount;
