import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { findDraft, makeDraft, writeDraftFiles } from './draft-files.js';
import { claimProposalKey } from './idempotency.js';
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
  /** Makes what is sent to the runtime from the draft's texts by path. Runs inside the transaction: pure, no waiting. */
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

/**
 * Writes proposal, first attempt, owner's access, first transition and idempotency key in one transaction, before the
 * runtime hears of anything (`guarantees.md` 8). The workflow is locked, so the input is one state of the draft; its
 * user is known, since the workflow names it.
 */
export const startProposal = (
  pool: CommonQueryMethods,
  input: StartProposalInput,
): Promise<StartProposalResult> =>
  pool.transaction(async (tx): Promise<StartProposalResult> => {
    if (!(await lockOwnWorkflow(tx, input))) return { kind: 'not_found' };
    if (input.idempotency) {
      const claim = await claimProposalKey(tx, {
        ...input.idempotency,
        userId: input.userId,
        proposalId: input.proposalId,
      });
      if (claim.kind === 'named') {
        const named = await readThread(tx, { proposalId: claim.proposalId });
        if (!named) throw new Error('an idempotency key names a proposal that is not there');
        return { kind: 'replay', row: named };
      }
      if (claim.kind !== 'new') return { kind: claim.kind };
    }
    const draft = await draftToStartFrom(tx, input.workflowId);
    const entries = Object.entries(draft.files);
    const baseHashes = Object.fromEntries(entries.map(([path, file]) => [path, file.sha256]));
    const packed = packJson(
      input.buildInput(Object.fromEntries(entries.map(([path, file]) => [path, file.content]))),
    );
    const row = await tx.one(named('start_proposal', threadRow)`
      WITH made AS (
        INSERT INTO proposals (
          id, workflow_id, draft_id, created_by_user_id, thread_id, user_prompt, context_file_path,
          context_selection, retry_of, base_revision, base_hashes, input, owner_node, deadline_at)
        VALUES (
          ${input.proposalId}, ${input.workflowId}, ${draft.id}, ${input.userId}, ${input.threadId},
          ${input.userPrompt}, ${input.contextFilePath}, ${input.contextSelection}, ${input.retryOf},
          ${draft.revision}, ${jsonOf(baseHashes)}::jsonb, ${sql.binary(packed)}, ${input.ownerNode},
          now() + ${input.totalDeadlineMs} * interval '1 millisecond')
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
    return { kind: 'ok', row };
  });

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
