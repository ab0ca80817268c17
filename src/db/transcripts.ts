import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { named, noRow } from './statement.js';
import { packFrames, type StoredFrame, unpackFrames } from './stored-bytes.js';

/** The frames of one epoch of a finished attempt; a partial one begins above 1. */
export interface Transcript {
  readonly epoch: string;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly frames: readonly StoredFrame[];
}

/** Stores the frames, replacing an earlier, shorter transcript of that epoch. Nothing is stored for no frames. */
export const saveTranscript = async (
  db: CommonQueryMethods,
  input: {
    readonly proposalId: string;
    readonly attempt: number;
    readonly epoch: string;
    readonly frames: readonly StoredFrame[];
  },
): Promise<void> => {
  const [first, last] = [input.frames[0], input.frames.at(-1)];
  if (!first || !last) return;
  const packed = await packFrames({}, input.frames);
  await db.query(named('save_transcript', noRow)`
    INSERT INTO transcripts (proposal_id, attempt, epoch, first_seq, last_seq, frames)
    VALUES (${input.proposalId}, ${input.attempt}, ${input.epoch}, ${first.seq}, ${last.seq}, ${sql.binary(packed)})
    ON CONFLICT (proposal_id, attempt, epoch) DO UPDATE SET
      first_seq = EXCLUDED.first_seq, last_seq = EXCLUDED.last_seq, frames = EXCLUDED.frames, saved_at = now()
    WHERE EXCLUDED.last_seq - EXCLUDED.first_seq >= transcripts.last_seq - transcripts.first_seq`);
};

/** The stored transcript of an epoch, or null. */
export const readTranscript = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly epoch: string },
): Promise<Transcript | null> => {
  const stored = z.object({ firstSeq: z.number(), lastSeq: z.number(), frames: z.instanceof(Buffer) });
  const row = await db.maybeOne(named('read_transcript', stored)`
    SELECT first_seq AS "firstSeq", last_seq AS "lastSeq", frames FROM transcripts
    WHERE proposal_id = ${input.proposalId} AND epoch = ${input.epoch}
    ORDER BY attempt DESC LIMIT 1`);
  if (!row) return null;
  const { frames } = await unpackFrames(row.frames);
  return { epoch: input.epoch, firstSeq: row.firstSeq, lastSeq: row.lastSeq, frames };
};
