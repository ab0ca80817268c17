import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { named, noRow } from './statement.js';

const outboxRow = z.object({
  id: z.number(),
  jobId: z.string(),
  runtimeThreadId: z.string().nullable(),
  tries: z.number(),
  createdAt: z.string(),
});
/** A clean-up to deliver: by the runtime's thread, else by the job. */
export type OutboxRow = z.infer<typeof outboxRow>;

/** Seconds for which a claimed row is nobody else's; a claimer that dies loses it after that. */
const LEASE_SECONDS = 30;

/** Claims what is due, oldest first. Two claimers never get the same row within its lease. */
export const claimDue = async (
  db: CommonQueryMethods,
  input: { readonly limit: number; readonly node: string; readonly leaseSeconds?: number },
): Promise<OutboxRow[]> => [
  ...(await db.any(named('claim_outbox', outboxRow)`
    UPDATE outbox o SET
      due_at = now() + ${input.leaseSeconds ?? LEASE_SECONDS} * interval '1 second', claimed_by = ${input.node},
      tries = o.tries + 1
    WHERE o.id IN (
      SELECT id FROM outbox WHERE due_at <= now() ORDER BY due_at LIMIT ${input.limit} FOR UPDATE SKIP LOCKED)
    RETURNING o.id, o.job_id AS "jobId", o.runtime_thread_id AS "runtimeThreadId", o.tries, o.created_at AS "createdAt"`)),
];

/** The runtime confirmed: notes it on the attempt and forgets the row, in one statement. */
export const confirm = async (db: CommonQueryMethods, input: { readonly id: number }): Promise<void> => {
  await db.query(named('confirm_outbox', noRow)`
    WITH done AS (DELETE FROM outbox WHERE id = ${input.id} RETURNING job_id)
    UPDATE attempts a SET cleaned_at = now() FROM done WHERE a.job_id = done.job_id AND a.cleaned_at IS NULL`);
};

/** As {@link confirm}, for an actor that cleaned up by itself and knows only its job. */
export const confirmJob = async (
  db: CommonQueryMethods,
  input: { readonly jobId: string },
): Promise<void> => {
  await db.query(named('confirm_job', noRow)`
    WITH done AS (DELETE FROM outbox WHERE job_id = ${input.jobId})
    UPDATE attempts SET cleaned_at = now() WHERE job_id = ${input.jobId} AND cleaned_at IS NULL`);
};

/** Not confirmed: due again in `seconds`. */
export const defer = async (
  db: CommonQueryMethods,
  input: { readonly id: number; readonly seconds: number },
): Promise<void> => {
  await db.query(named('defer_outbox', noRow)`
    UPDATE outbox SET due_at = now() + ${input.seconds} * interval '1 second', claimed_by = NULL
    WHERE id = ${input.id}`);
};

/** How many clean-ups wait for the runtime's confirmation. */
export const pendingCount = (db: CommonQueryMethods): Promise<number> =>
  db.oneFirst(named('outbox_pending', z.object({ count: z.number() }))`SELECT count(*) AS count FROM outbox`);
