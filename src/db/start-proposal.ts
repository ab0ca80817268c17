import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { findDraft, makeDraft, writeDraftFiles } from './draft-files.js';
import { findProposalKey } from './idempotency.js';
import { type DraftRow, type ThreadRow, threadRow } from './row-schemas.js';
import { jsonOf, named } from './statement.js';
import { packJson } from './stored-bytes.js';
import { readThread, threadColumns } from './threads.js';
import { findVersion, listVersions } from './versions.js';
import { lockOwnWorkflow, raiseRevision } from './workflows.js';

export interface StartProposalInput {
  readonly proposalId: string;
  /** The public thread, and the job id of the first attempt. */
  readonly threadId: string;
  readonly attemptId?: string;
  /** Key of the first transition, made before the first try. */
  readonly transitionId: string;
  readonly workflowId: string;
  readonly userId: string;
  readonly userPrompt: string;
  readonly contextFilePath: string | null;
  readonly contextSelection: string | null;
  /** Makes what is sent to the runtime from the draft's texts by path. Its last result is what was stored: pure, no waiting. */
  readonly buildInput: (baseFiles: Record<string, string>) => unknown;
  readonly ownerNode: string;
  /** Milliseconds from now, on database time, until the proposal must have ended. */
  readonly totalDeadlineMs: number;
  readonly idempotency: { readonly key: string; readonly route: string; readonly bodyHash: string } | null;
  readonly retryOf: string | null;
}

export type StartProposalResult =
  | { kind: 'ok'; row: ThreadRow }
  | { kind: 'not_found' }
  /** The key names a proposal that was answered for, or is 10 s old: answer 202 from its row. */
  | { kind: 'replay'; row: ThreadRow }
  | { kind: 'in_flight' }
  | { kind: 'mismatch' };

/** Checks and claims in the statement that writes: what it has no row of, it writes nothing of. */
const startable = ({ idempotency, ...input }: StartProposalInput, revision: number) => {
  const own = sql.fragment`own AS (
      SELECT id FROM workflows
      WHERE id = ${input.workflowId} AND user_id = ${input.userId} AND draft_revision = ${revision}
        AND deleted_at IS NULL
      FOR NO KEY UPDATE)`;
  if (!idempotency) return { steps: own, from: sql.fragment`own` };
  const claimed = sql.fragment`claimed AS (
      INSERT INTO idempotency_keys (user_id, route, key, body_hash, holder, proposal_id)
      SELECT ${input.userId}, ${idempotency.route}, ${idempotency.key}, ${idempotency.bodyHash},
             ${input.proposalId}::uuid, ${input.proposalId}::uuid
      FROM own
      ON CONFLICT DO NOTHING RETURNING proposal_id)`;
  return { steps: sql.fragment`${own}, ${claimed}`, from: sql.fragment`claimed` };
};

/**
 * Writes proposal, first attempt, owner's access, first transition and idempotency key in one statement. Null, and
 * nothing written, where the workflow is not the user's, its draft has another revision by now, or the key is taken.
 */
const writeStart = (
  db: CommonQueryMethods,
  input: StartProposalInput,
  draft: DraftRow,
): Promise<ThreadRow | null> => {
  const entries = Object.entries(draft.files);
  const baseHashes = Object.fromEntries(entries.map(([path, file]) => [path, file.sha256]));
  const packed = packJson(
    input.buildInput(Object.fromEntries(entries.map(([path, file]) => [path, file.content]))),
  );
  const { steps, from } = startable(input, draft.revision);
  return db.maybeOne(named('start_proposal', threadRow)`
    WITH ${steps}, made AS (
      INSERT INTO proposals (
        id, workflow_id, draft_id, created_by_user_id, thread_id, user_prompt, context_file_path,
        context_selection, retry_of, base_revision, base_hashes, input, owner_node, deadline_at)
      SELECT
        ${input.proposalId}::uuid, ${input.workflowId}::uuid, ${draft.id}::uuid, ${input.userId}::text,
        ${input.threadId}::uuid, ${input.userPrompt}, ${input.contextFilePath}, ${input.contextSelection},
        ${input.retryOf}::uuid, ${draft.revision}::integer, ${jsonOf(baseHashes)}::jsonb,
        ${sql.binary(packed)}::bytea, ${input.ownerNode}, now() + ${input.totalDeadlineMs} * interval '1 millisecond'
      FROM ${from}
      RETURNING *
    ), tried AS (
      INSERT INTO attempts (proposal_id, attempt, job_id) SELECT id, attempt, thread_id FROM made RETURNING *
    ), allowed AS (
      INSERT INTO proposal_access (proposal_id, user_id, role) SELECT id, ${input.userId}::text, 'owner' FROM made
    ), noted AS (
      INSERT INTO proposal_transitions (id, proposal_id, row_version, to_state, event, actor_user_id, attempt)
      SELECT ${input.transitionId}::uuid, id, version, phase, 'start', ${input.userId}::text, attempt FROM made
    )
    SELECT ${threadColumns}, pg_notify('threads', p.thread_id::text) FROM made p, tried a`);
};

/** The draft of now; where there is none it is made from the newest version, else empty. */
const draftToStartFrom = async (tx: CommonQueryMethods, workflowId: string): Promise<DraftRow> => {
  const existing = await findDraft(tx, { workflowId });
  if (existing) return existing;
  const { id } = await makeDraft(tx, workflowId);
  const [newest] = await listVersions(tx, { workflowId, limit: 1, beforeVersion: null });
  const version = newest && (await findVersion(tx, { workflowId, versionNumber: newest.versionNumber }));
  const files = Object.entries(version?.files ?? {}).map(([path, file]) => [path, file.content] as const);
  if (files.length > 0) {
    await writeDraftFiles(tx, id, await raiseRevision(tx, workflowId), Object.fromEntries(files));
  }
  const draft = await findDraft(tx, { workflowId });
  if (!draft) throw new Error('the draft that was just made is not there');
  return draft;
};

/** What a taken key answers; null while nothing has it. */
const keyAnswer = async (
  tx: CommonQueryMethods,
  { idempotency, userId }: StartProposalInput,
): Promise<StartProposalResult | null> => {
  if (!idempotency) return null;
  const key = await findProposalKey(tx, { ...idempotency, userId });
  if (key.kind === 'free') return null;
  if (key.kind !== 'named') return { kind: key.kind };
  const row = await readThread(tx, { proposalId: key.proposalId });
  if (!row) throw new Error('an idempotency key names a proposal that is not there');
  return { kind: 'replay', row };
};

/** The start where something stands in its way, or the draft has to be made: under the workflow's lock nothing moves. */
const startLocked = (pool: CommonQueryMethods, input: StartProposalInput): Promise<StartProposalResult> =>
  pool.transaction(async (tx): Promise<StartProposalResult> => {
    if (!(await lockOwnWorkflow(tx, input))) return { kind: 'not_found' };
    const answer = await keyAnswer(tx, input);
    if (answer) return answer;
    const row = await writeStart(tx, input, await draftToStartFrom(tx, input.workflowId));
    if (row) return { kind: 'ok', row };
    // Another workflow's start has taken the key since, and was refused before we looked: the next repeat finds it free.
    return (await keyAnswer(tx, input)) ?? { kind: 'in_flight' };
  });

/**
 * Writes the proposal and all that belongs to it at once, before the runtime hears of anything (`guarantees.md` 8).
 * The statement writes only where the draft still has the revision that was read, so the input is one state of it; its
 * user is known, since the workflow names it.
 */
export const startProposal = async (
  pool: CommonQueryMethods,
  input: StartProposalInput,
): Promise<StartProposalResult> => {
  const draft = await findDraft(pool, input);
  const row = draft && (await writeStart(pool, input, draft));
  return row ? { kind: 'ok', row } : startLocked(pool, input);
};

/**
 * Makes a start final, with its key, before it is answered with 202: a commit of its refusal that is under way follows an
 * older version, and comes too late from now on. False where the refusal was committed first.
 */
export const keepStart = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly transitionId: string },
): Promise<boolean> => {
  const kept = await db.maybeOne(named('keep_start', z.object({ version: z.number() }))`
    WITH moved AS (
      UPDATE proposals SET version = version + 1 WHERE id = ${input.proposalId} AND status = 'processing'
      RETURNING id, thread_id, version, phase, attempt
    ), answered AS (
      UPDATE idempotency_keys k SET answered_at = now() FROM moved
      WHERE k.proposal_id = moved.id AND k.answered_at IS NULL
    ), noted AS (
      INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt)
      SELECT ${input.transitionId}::uuid, id, version, phase, phase, 'start_kept', attempt FROM moved
    )
    SELECT version, pg_notify('threads', thread_id::text) FROM moved`);
  if (kept !== null) return true;
  return !(await db.exists(named('was_start_refused', z.object({}))`
    SELECT 1 FROM proposal_transitions WHERE proposal_id = ${input.proposalId} AND event = 'start_refused'`));
};

/** True once the row of the transition is there: for whoever lost the answer to {@link startProposal}. */
export const wasStarted = (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<boolean> =>
  db.exists(named('was_started', z.object({}))`SELECT 1 FROM proposals WHERE id = ${input.proposalId}`);
