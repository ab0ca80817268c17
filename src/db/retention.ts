import type { CommonQueryMethods } from 'slonik';
import { purgeKeys } from './idempotency.js';
import { named, noRow } from './statement.js';
import { purgeTickets } from './tickets.js';

/** Ages in milliseconds. Audit, proposals and their last frames stay for ever. */
export interface RetentionAges {
  readonly transcriptsMs: number;
  readonly keysMs: number;
}

/** Removes transcripts whose attempt ended longer ago than `olderThanMs`; answers how many. */
const purgeTranscripts = async (
  db: CommonQueryMethods,
  input: { readonly olderThanMs: number },
): Promise<number> =>
  (
    await db.query(named('purge_transcripts', noRow)`
      DELETE FROM transcripts t USING attempts a
      WHERE a.proposal_id = t.proposal_id AND a.attempt = t.attempt
        AND a.ended_at < now() - ${input.olderThanMs} * interval '1 millisecond'`)
  ).rowCount;

/** One sweep over everything that is kept for a while only; answers how many rows went. */
export const purgeExpired = async (
  db: CommonQueryMethods,
  ages: RetentionAges,
): Promise<{ transcripts: number; keys: number; tickets: number }> => ({
  transcripts: await purgeTranscripts(db, { olderThanMs: ages.transcriptsMs }),
  keys: await purgeKeys(db, { olderThanMs: ages.keysMs }),
  tickets: await purgeTickets(db),
});
