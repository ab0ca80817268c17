import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import type { GeneratedFiles } from './conflict-rule.js';
import type { LastFrames } from './proposals.js';
import { cleanupOfMoved } from './resolve.js';
import type { ProposalError, ProposalPhase, ProposalWarning } from './row-schemas.js';
import { bytesOf, jsonOf, named } from './statement.js';
import { packFrames } from './stored-bytes.js';
import { dueOfEnd, partOfMoved, type TranscriptOfEnd } from './transcripts.js';

/** What a commit of the owner follows, and the key under which it can be looked up (`guarantees.md` 1, 2). */
export interface Fence {
  readonly proposalId: string;
  readonly generation: number;
  readonly version: number;
  /** UUID, made before the first try. */
  readonly transitionId: string;
}

/** The row's new version, or null: no row was touched, so look the transition up and read the row again. */
export type Committed = { version: number } | null;

interface Move {
  readonly from: string;
  readonly event: string;
  readonly attempt: number;
  readonly details?: object | null | undefined;
}

const committed = z.object({ version: z.number() });

const fenced = (fence: Fence) => sql.fragment`
  id = ${fence.proposalId} AND owner_generation = ${fence.generation} AND version = ${fence.version}
  AND status = 'processing'`;

/** The audit record, made from the RETURNING of the fenced update: no row moved, none noted. */
const noted = (fence: Fence, to: string, move: Move) => sql.fragment`
  INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt, details)
  SELECT ${fence.transitionId}::uuid, id, version, ${move.from}, ${to}, ${move.event}, ${move.attempt}::integer,
         ${jsonOf(move.details)}::jsonb
  FROM moved`;

/** Closes one attempt of the proposal in `moved`. */
const closed = (attempt: number, outcome: string) => sql.fragment`
  UPDATE attempts a SET outcome = ${outcome}, ended_at = now() FROM moved
  WHERE a.proposal_id = moved.id AND a.attempt = ${attempt} AND a.outcome IS NULL`;

/** pg_notify stands in the outermost SELECT: in a CTE that nobody reads it is silently never executed. */
const told = sql.fragment`SELECT version, pg_notify('threads', thread_id::text) FROM moved`;

/** Commits a move within `processing`, with what the runtime said about the attempt. */
export const commitPhase = (
  db: CommonQueryMethods,
  fence: Fence,
  move: Move & {
    readonly to: Exclude<ProposalPhase, 'retrying'>;
    readonly runtimeThreadId?: string | null | undefined;
    readonly runtimeEpoch?: string | null | undefined;
  },
): Promise<Committed> =>
  db.maybeOne(named('commit_phase', committed)`
    WITH moved AS (
      UPDATE proposals SET phase = ${move.to}, version = version + 1 WHERE ${fenced(fence)}
      RETURNING id, thread_id, version
    ), told_by_runtime AS (
      UPDATE attempts a SET
        runtime_thread_id = COALESCE(${move.runtimeThreadId ?? null}, a.runtime_thread_id),
        runtime_epoch = COALESCE(${move.runtimeEpoch ?? null}, a.runtime_epoch)
      FROM moved
      WHERE a.proposal_id = moved.id AND a.attempt = ${move.attempt}
        AND ${Boolean(move.runtimeThreadId ?? move.runtimeEpoch)}
    ), noted AS (${noted(fence, move.to, move)})
    ${told}`);

/**
 * Closes the failed attempt, orders its clean-up, due at once, and opens the next (`guarantees.md` 7, 15).
 *
 * @param move.attempt the attempt that is closed
 * @param move.outcome the code of its failure
 */
export const commitRetry = (
  db: CommonQueryMethods,
  fence: Fence,
  move: Move & { readonly nextAttempt: number; readonly nextJobId: string; readonly outcome: string },
): Promise<Committed> =>
  db.maybeOne(named('commit_retry', committed)`
    WITH moved AS (
      UPDATE proposals SET phase = 'retrying', attempt = ${move.nextAttempt}, version = version + 1
      WHERE ${fenced(fence)}
      RETURNING id, thread_id, version, attempt, transcript_due_at
    ), closed AS (${closed(move.attempt, move.outcome)}),
    opened AS (
      INSERT INTO attempts (proposal_id, attempt, job_id)
      SELECT id, ${move.nextAttempt}::integer, ${move.nextJobId}::uuid FROM moved
    ), cleaned AS (${cleanupOfMoved}),
    noted AS (${noted(fence, 'retrying', move)})
    ${told}`);

const packLastFrames = async (last: LastFrames | null | undefined): Promise<Buffer | null> => {
  if (!last) return null;
  const { frames, ...header } = last;
  return packFrames(header, frames);
};

/**
 * Commits the result, with its transcript: the one statement after which `end` may leave (P1). A cancel that was
 * committed before wins.
 */
export const commitCompleted = async (
  db: CommonQueryMethods,
  fence: Fence,
  result: Move & {
    readonly generatedFiles: GeneratedFiles;
    readonly warnings: readonly ProposalWarning[];
    readonly lastFrames: LastFrames;
    readonly finalEpoch: string;
    readonly transcript?: TranscriptOfEnd;
  },
): Promise<Committed> => {
  const lastFrames = await packLastFrames(result.lastFrames);
  return db.maybeOne(named('commit_completed', committed)`
    WITH moved AS (
      UPDATE proposals SET
        status = 'completed', phase = NULL, completed_at = now(), owner_node = NULL, version = version + 1,
        generated_files = ${jsonOf(result.generatedFiles)}::jsonb, warnings = ${jsonOf(result.warnings)}::jsonb,
        last_frames = ${bytesOf(lastFrames)}, final_epoch = ${result.finalEpoch},
        transcript_due_at = ${dueOfEnd(result.transcript)}
      WHERE ${fenced(fence)} AND cancel_requested_at IS NULL
      RETURNING id, thread_id, version, attempt, final_epoch
    ), closed AS (${closed(result.attempt, 'completed')}),
    kept AS (${partOfMoved(result.transcript?.part)}),
    noted AS (${noted(fence, 'completed', result)})
    ${told}`);
};

interface Failure extends Move {
  readonly error: ProposalError;
  readonly warnings: readonly ProposalWarning[];
  readonly lastFrames: LastFrames | null;
  readonly finalEpoch: string | null;
  readonly generatedFiles?: GeneratedFiles | null | undefined;
  readonly transcript?: TranscriptOfEnd | undefined;
}

const failedSet = (failure: Failure, lastFrames: Buffer | null) => sql.fragment`
  status = 'failed', phase = NULL, owner_node = NULL, version = version + 1, error = ${jsonOf(failure.error)}::jsonb,
  generated_files = ${jsonOf(failure.generatedFiles)}::jsonb, warnings = ${jsonOf(failure.warnings)}::jsonb,
  last_frames = ${bytesOf(lastFrames)}, final_epoch = ${failure.finalEpoch},
  transcript_due_at = ${dueOfEnd(failure.transcript)}`;

/** Commits the failure, with its transcript and the clean-up of every attempt that is not confirmed. */
export const commitFailed = async (
  db: CommonQueryMethods,
  fence: Fence,
  failure: Failure,
): Promise<Committed> => {
  const lastFrames = await packLastFrames(failure.lastFrames);
  return db.maybeOne(named('commit_failed', committed)`
    WITH moved AS (
      UPDATE proposals SET ${failedSet(failure, lastFrames)} WHERE ${fenced(fence)}
      RETURNING id, thread_id, version, attempt, final_epoch, transcript_due_at
    ), closed AS (${closed(failure.attempt, failure.error.code)}),
    kept AS (${partOfMoved(failure.transcript?.part)}),
    cleaned AS (${cleanupOfMoved}),
    noted AS (${noted(fence, 'failed', failure)})
    ${told}`);
};

/**
 * A certain refusal of the invoke that the first request waits for: fails the row and deletes its idempotency key in
 * one statement, so that a repeat starts anew (`guarantees.md` 8).
 *
 * @param input.generation, input.version as read when the row was written; 1 and 1 where nothing moved since
 */
export const commitRefusedStart = async (
  db: CommonQueryMethods,
  input: {
    readonly proposalId: string;
    readonly transitionId: string;
    readonly generation?: number;
    readonly version?: number;
    readonly error: ProposalError;
    readonly from?: string;
    readonly event?: string;
    readonly details?: object | null;
    readonly lastFrames?: LastFrames | null;
    readonly finalEpoch?: string | null;
  },
): Promise<Committed> => {
  const fence: Fence = { ...input, generation: input.generation ?? 1, version: input.version ?? 1 };
  const failure: Failure = {
    from: input.from ?? 'invoking',
    event: input.event ?? 'start_refused',
    attempt: 1,
    details: input.details,
    error: input.error,
    warnings: [],
    lastFrames: input.lastFrames ?? null,
    finalEpoch: input.finalEpoch ?? null,
  };
  const lastFrames = await packLastFrames(failure.lastFrames);
  return db.maybeOne(named('commit_refused_start', committed)`
    WITH moved AS (
      UPDATE proposals SET ${failedSet(failure, lastFrames)} WHERE ${fenced(fence)}
      RETURNING id, thread_id, version, attempt, transcript_due_at
    ), closed AS (${closed(1, failure.error.code)}),
    cleaned AS (${cleanupOfMoved}),
    freed AS (DELETE FROM idempotency_keys k USING moved WHERE k.proposal_id = moved.id),
    noted AS (${noted(fence, 'failed', failure)})
    ${told}`);
};

/** Gives the thread up: nobody owns it, anybody may take it over (graceful stop, hand-over). */
export const giveUp = (
  db: CommonQueryMethods,
  fence: Fence,
  move: { readonly from: string; readonly attempt: number; readonly details?: object | null },
): Promise<Committed> =>
  db.maybeOne(named('give_up', committed)`
    WITH moved AS (
      UPDATE proposals SET owner_node = NULL, version = version + 1 WHERE ${fenced(fence)}
      RETURNING id, thread_id, version
    ), noted AS (${noted(fence, move.from, { ...move, event: 'given_up' })})
    ${told}`);

/** Looks up a commit whose outcome is unknown: found means that it happened, with the version that it gave. */
export const findTransition = (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly transitionId: string },
): Promise<Committed> =>
  db.maybeOne(named('find_transition', committed)`
    SELECT row_version AS version FROM proposal_transitions
    WHERE id = ${input.transitionId} AND proposal_id = ${input.proposalId}`);
