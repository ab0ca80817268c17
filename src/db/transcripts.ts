import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { bytesOf, named } from './statement.js';
import { packFrames, type StoredFrame, unpackFrames } from './stored-bytes.js';

/** A part of a transcript as it is stored. */
export interface PackedPart {
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** Of the frames, before compression. */
  readonly bytes: number;
  readonly packed: Buffer;
}

/** Packs frames of one epoch, which are copied at once; null for none. */
export const packPart = async (frames: readonly StoredFrame[]): Promise<PackedPart | null> => {
  const [first, last] = [frames[0], frames.at(-1)];
  if (!first || !last) return null;
  const bytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
  return { firstSeq: first.seq, lastSeq: last.seq, bytes, packed: await packFrames({}, frames) };
};

/** Seconds for which an incomplete transcript is its writer's; then anybody may take the work over. */
const LEASE_SECONDS = 15;

/** What a commit that ends a run does for its transcript. */
export interface TranscriptOfEnd {
  /** Goes into the same statement, where it is small. */
  readonly part: PackedPart | null;
  /** Frames are missing in it: they follow under the generation of the commit. */
  readonly incomplete: boolean;
}

/** `transcript_due_at` of a row that ends. */
export const dueOfEnd = (transcript: TranscriptOfEnd | undefined) =>
  transcript?.incomplete
    ? sql.fragment`now() + ${LEASE_SECONDS} * interval '1 second'`
    : sql.fragment`NULL::timestamptz`;

/** Stores a part for the row in the CTE `moved`, an ended run. */
export const partOfMoved = (part: PackedPart | null | undefined) => sql.fragment`
  INSERT INTO transcripts (proposal_id, attempt, epoch, first_seq, last_seq, bytes, frames)
  SELECT id, attempt, final_epoch, ${part?.firstSeq ?? 0}::bigint, ${part?.lastSeq ?? 0}::bigint,
         ${part?.bytes ?? 0}::integer, ${bytesOf(part?.packed ?? null)}::bytea
  FROM moved WHERE ${Boolean(part)}
  ON CONFLICT (proposal_id, attempt, epoch, first_seq) DO UPDATE SET
    last_seq = EXCLUDED.last_seq, bytes = EXCLUDED.bytes, frames = EXCLUDED.frames
  WHERE EXCLUDED.last_seq > transcripts.last_seq`;

/** Who may complete a transcript: the owner that ended the run, or who raised the generation since. */
interface Writer {
  readonly proposalId: string;
  readonly generation: number;
}

const unfinished = ({ proposalId, generation }: Writer) => sql.fragment`
  id = ${proposalId} AND owner_generation = ${generation} AND transcript_due_at IS NOT NULL`;

/**
 * Stores a part of an incomplete transcript, forgets those that end below `keepFrom`, and prolongs the writer's time.
 *
 * @returns false where somebody else has the work now, or it is done
 */
export const addTranscriptPart = async (
  db: CommonQueryMethods,
  input: Writer & { readonly part: PackedPart; readonly keepFrom: number },
): Promise<boolean> =>
  (await db.maybeOne(named('add_transcript_part', z.object({ version: z.number() }))`
    WITH moved AS (
      UPDATE proposals SET
        version = version + 1,
        transcript_due_at = GREATEST(transcript_due_at, now() + ${LEASE_SECONDS} * interval '1 second')
      WHERE ${unfinished(input)}
      RETURNING id, attempt, final_epoch, version
    ), forgotten AS (
      DELETE FROM transcripts t USING moved m
      WHERE t.proposal_id = m.id AND t.attempt = m.attempt AND t.epoch = m.final_epoch AND t.last_seq < ${input.keepFrom}
    ), kept AS (${partOfMoved(input.part)})
    SELECT version FROM moved`)) !== null;

/**
 * Nothing more comes: the transcript is complete, or was given up. A clean-up that waits for it falls due; one that a
 * decision orders at this very moment is not seen, and waits its full minute.
 */
export const finishTranscript = async (db: CommonQueryMethods, writer: Writer): Promise<boolean> =>
  (await db.maybeOne(named('finish_transcript', z.object({ version: z.number() }))`
    WITH moved AS (
      UPDATE proposals SET transcript_due_at = NULL, version = version + 1 WHERE ${unfinished(writer)}
      RETURNING id, thread_id, version
    ), hastened AS (
      UPDATE outbox o SET due_at = now() FROM attempts a, moved m
      WHERE a.proposal_id = m.id AND o.job_id = a.job_id AND o.tries = 0 AND o.due_at > now()
    )
    SELECT version, pg_notify('threads', thread_id::text) FROM moved`)) !== null;

const claimed = z.object({
  proposalId: z.string(),
  threadId: z.string(),
  generation: z.number(),
  attempt: z.number(),
  epoch: z.string(),
  runtimeThreadId: z.string(),
  tries: z.number(),
  cleaned: z.boolean(),
});
export type ClaimedTranscript = z.infer<typeof claimed>;

/**
 * Takes over the longest overdue transcript by raising its generation (`guarantees.md` 18); whoever had it before
 * writes no more. The next to come may do so after twice the time with each try.
 */
export const claimTranscript = (db: CommonQueryMethods): Promise<ClaimedTranscript | null> =>
  db.maybeOne(named('claim_transcript', claimed)`
    UPDATE proposals p SET
      owner_generation = p.owner_generation + 1, version = p.version + 1, transcript_tries = p.transcript_tries + 1,
      transcript_due_at = now() + ${LEASE_SECONDS} * interval '1 second' * 2 ^ (p.transcript_tries + 1)
    FROM attempts a
    WHERE p.id = (
      SELECT id FROM proposals WHERE transcript_due_at <= now()
      ORDER BY transcript_due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
      AND a.proposal_id = p.id AND a.attempt = p.attempt
    RETURNING p.id AS "proposalId", p.thread_id AS "threadId", p.owner_generation AS generation, p.attempt,
      p.final_epoch AS epoch, COALESCE(a.runtime_thread_id, a.job_id::text) AS "runtimeThreadId",
      p.transcript_tries AS tries, a.cleaned_at IS NOT NULL AS cleaned`);

/** How many ended runs have a transcript that lacks frames and was not given up. */
export const incompleteTranscripts = (db: CommonQueryMethods): Promise<number> =>
  db.oneFirst(named('incomplete_transcripts', z.object({ count: z.number() }))`
    SELECT count(*) AS count FROM proposals WHERE transcript_due_at IS NOT NULL`);

const extent = z.object({ firstSeq: z.number(), lastSeq: z.number(), bytes: z.number() });
export type PartExtent = z.infer<typeof extent>;

/** What is stored of an epoch, in order. */
export const listTranscriptParts = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly epoch: string },
): Promise<PartExtent[]> => [
  ...(await db.any(named('list_transcript_parts', extent)`
    SELECT first_seq AS "firstSeq", last_seq AS "lastSeq", bytes FROM transcripts
    WHERE proposal_id = ${input.proposalId} AND epoch = ${input.epoch} ORDER BY first_seq`)),
];

export interface TranscriptPart {
  /** Frames may still be added to this transcript. */
  readonly incomplete: boolean;
  /** In order, those of the part at or below `after` too; empty where nothing above it is stored. */
  readonly frames: readonly StoredFrame[];
}

/** The part that holds the lowest number above `after` that is stored of an epoch. */
export const readTranscriptPart = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly epoch: string; readonly after: number },
): Promise<TranscriptPart> => {
  const stored = z.object({ incomplete: z.boolean(), frames: z.instanceof(Buffer).nullable() });
  const row = await db.maybeOne(named('read_transcript_part', stored)`
    SELECT p.transcript_due_at IS NOT NULL AS incomplete, t.frames
    FROM proposals p LEFT JOIN LATERAL (
      SELECT frames FROM transcripts
      WHERE proposal_id = p.id AND epoch = ${input.epoch} AND last_seq > ${input.after}
      ORDER BY first_seq LIMIT 1) t ON true
    WHERE p.id = ${input.proposalId}`);
  if (!row?.frames) return { incomplete: row?.incomplete ?? false, frames: [] };
  const { frames } = await unpackFrames(row.frames);
  return { incomplete: row.incomplete, frames };
};
