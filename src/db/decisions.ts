import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { type GeneratedFiles, pathsOf, textOf } from './conflict-rule.js';
import { findDraft, makeDraft, writeDraftFiles } from './draft-files.js';
import { resolveProposals } from './resolve.js';
import {
  type AccessRole,
  errorSchema,
  generatedFilesSchema,
  type ProposalResolution,
  resolutionSchema,
  statusSchema,
} from './row-schemas.js';
import { named } from './statement.js';
import { lockWorkflow, raiseRevision } from './workflows.js';

/** Why a decision was not made. */
type Undecidable =
  | { kind: 'already_resolved'; resolution: ProposalResolution }
  | { kind: 'not_completed' }
  | { kind: 'not_found' }
  | { kind: 'forbidden' };

export type ApproveResult =
  /** `first` is false where an earlier approval is answered again. */
  | { kind: 'ok'; draftRevision: number; filesApplied: number; first: boolean }
  | { kind: 'conflict'; conflicts: string[] }
  | { kind: 'invalid'; errors: { path: string; message: string }[] }
  | Undecidable;

export type RejectResult = { kind: 'ok'; first: boolean } | Undecidable;

const decidable = z.object({
  workflowId: z.string(),
  status: statusSchema,
  resolution: resolutionSchema.nullable(),
  generatedFiles: generatedFilesSchema.nullable(),
  baseHashes: z.record(z.string()),
});

const accessRow = z.object({ workflowId: z.string(), access: z.enum(['owner', 'viewer']) });

const accessOf = (db: CommonQueryMethods, input: { proposalId: string; userId: string }) =>
  db.maybeOne(named('access_to_decide', accessRow)`
    SELECT p.workflow_id AS "workflowId", x.role AS access
    FROM proposals p
    JOIN proposal_access x ON x.proposal_id = p.id AND x.user_id = ${input.userId}
    JOIN workflows w ON w.id = p.workflow_id AND w.deleted_at IS NULL
    WHERE p.id = ${input.proposalId}`);

/** Locks workflow, then proposal (`guarantees.md` 5), for a user who may decide. */
const lockToDecide = async (
  tx: CommonQueryMethods,
  input: { proposalId: string; userId: string },
): Promise<
  { kind: 'locked'; row: z.infer<typeof decidable> } | { kind: 'not_found' } | { kind: 'forbidden' }
> => {
  const found: { workflowId: string; access: AccessRole } | null = await accessOf(tx, input);
  if (!found) return { kind: 'not_found' };
  if (found.access !== 'owner') return { kind: 'forbidden' };
  if (!(await lockWorkflow(tx, found.workflowId))) return { kind: 'not_found' };
  const row = await tx.one(named('lock_proposal', decidable)`
    SELECT workflow_id AS "workflowId", status, resolution, generated_files AS "generatedFiles",
           base_hashes AS "baseHashes"
    FROM proposals WHERE id = ${input.proposalId} FOR NO KEY UPDATE`);
  return { kind: 'locked', row };
};

const undecidable = (row: z.infer<typeof decidable>): Undecidable | null => {
  if (row.status === 'resolved' && row.resolution) {
    return { kind: 'already_resolved', resolution: row.resolution };
  }
  return row.status === 'completed' ? null : { kind: 'not_completed' };
};

const approvalDetails = z.object({ files: z.array(z.string()), draft_revision: z.number() });

/** The first approval's answer, from its audit record. */
const firstApproval = async (tx: CommonQueryMethods, proposalId: string): Promise<ApproveResult> => {
  const { details } = await tx.one(named('first_approval', z.object({ details: approvalDetails }))`
    SELECT details FROM proposal_transitions WHERE proposal_id = ${proposalId} AND event = 'approve'`);
  return {
    kind: 'ok',
    draftRevision: details.draft_revision,
    filesApplied: details.files.length,
    first: false,
  };
};

interface Choice {
  readonly files?: readonly string[] | undefined;
  readonly resolutions?: Readonly<Record<string, 'proposal' | 'draft'>> | undefined;
}

/** What is wrong with the choice of paths; empty where nothing is. */
const faultsOf = (choice: Choice, generated: GeneratedFiles): { path: string; message: string }[] => {
  const known = (path: string) => Object.hasOwn(generated, path);
  const faults: { path: string; message: string }[] = [];
  const { files } = choice;
  if (files?.length === 0) faults.push({ path: 'files', message: 'names no file' });
  files?.forEach((path, index) => {
    if (!known(path)) faults.push({ path: `files.${index}`, message: 'is not a file of the proposal' });
    else if (files.indexOf(path) < index) faults.push({ path: `files.${index}`, message: 'is repeated' });
  });
  for (const path of Object.keys(choice.resolutions ?? {})) {
    if (!known(path)) faults.push({ path: `resolutions.${path}`, message: 'is not a file of the proposal' });
  }
  return faults;
};

/**
 * Applies the chosen files to the draft, all or nothing, if on none of them draft and proposal both moved away from
 * what the run started with (P5). A second approval, whatever it asks for, gets the first one's answer.
 */
export const approveProposal = (
  pool: CommonQueryMethods,
  input: Choice & { readonly proposalId: string; readonly userId: string },
): Promise<ApproveResult> =>
  pool.transaction(async (tx): Promise<ApproveResult> => {
    const locked = await lockToDecide(tx, input);
    if (locked.kind !== 'locked') return locked;
    const { row } = locked;
    if (row.resolution === 'approved') return firstApproval(tx, input.proposalId);
    const refusal = undecidable(row);
    if (refusal) return refusal;
    const generated: GeneratedFiles = row.generatedFiles ?? {};
    const errors = faultsOf(input, generated);
    if (errors.length > 0) return { kind: 'invalid', errors };

    const draft = await findDraft(tx, row);
    const draftHashes = Object.fromEntries(
      Object.entries(draft?.files ?? {}).map(([path, file]) => [path, file.sha256]),
    );
    const chosen = pathsOf(row.baseHashes, draftHashes, generated).filter(
      ({ path }) => !input.files || input.files.includes(path),
    );
    const decided = (path: string) =>
      input.resolutions && Object.hasOwn(input.resolutions, path) ? input.resolutions[path] : undefined;
    const conflicts = chosen.filter(({ path, state }) => state === 'conflict' && !decided(path));
    if (conflicts.length > 0) return { kind: 'conflict', conflicts: conflicts.map(({ path }) => path) };

    const applied = chosen
      .filter(
        ({ path, state }) => state === 'apply' || (state === 'conflict' && decided(path) === 'proposal'),
      )
      .map(({ path }) => path);
    const draftRevision = await applyFiles(tx, row.workflowId, draft?.id, applied, generated);
    await resolveProposals(tx, {
      ids: [input.proposalId],
      resolution: 'approved',
      userId: input.userId,
      details: { files: applied, resolutions: input.resolutions ?? {}, draft_revision: draftRevision },
    });
    return { kind: 'ok', draftRevision, filesApplied: applied.length, first: true };
  });

const applyFiles = async (
  tx: CommonQueryMethods,
  workflowId: string,
  draftId: string | undefined,
  paths: readonly string[],
  generated: GeneratedFiles,
): Promise<number> => {
  if (paths.length === 0) {
    return (await lockWorkflow(tx, workflowId))?.draftRevision ?? 0;
  }
  const id = draftId ?? (await makeDraft(tx, workflowId)).id;
  const revision = await raiseRevision(tx, workflowId);
  const texts = paths.map((path) => {
    const file = generated[path] ?? null;
    return [path, file === null ? null : textOf(file)] as const;
  });
  await writeDraftFiles(tx, id, revision, Object.fromEntries(texts));
  return revision;
};

/** Discards a completed proposal. A second rejection answers as the first. */
export const rejectProposal = (
  pool: CommonQueryMethods,
  input: { readonly proposalId: string; readonly userId: string; readonly reason?: string | undefined },
): Promise<RejectResult> =>
  pool.transaction(async (tx): Promise<RejectResult> => {
    const locked = await lockToDecide(tx, input);
    if (locked.kind !== 'locked') return locked;
    if (locked.row.resolution === 'rejected') return { kind: 'ok', first: false };
    const refusal = undecidable(locked.row);
    if (refusal) return refusal;
    await resolveProposals(tx, {
      ids: [input.proposalId],
      resolution: 'rejected',
      userId: input.userId,
      details: input.reason === undefined ? null : { reason: input.reason },
    });
    return { kind: 'ok', first: true };
  });

const cancelState = z.object({
  status: statusSchema,
  error: errorSchema.nullable(),
  requested: z.boolean(),
});

/**
 * Asks for the cancel of a running proposal, on any replica; its owner acts on it (`guarantees.md` 4).
 *
 * @returns `already_cancelled` where it was asked for before or has failed as `cancelled`: to be answered like `ok`
 */
export const requestCancel = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly userId: string },
): Promise<'ok' | 'already_cancelled' | 'not_processing' | 'not_found' | 'forbidden'> => {
  const found = await accessOf(db, input);
  if (!found) return 'not_found';
  if (found.access !== 'owner') return 'forbidden';
  const moved = await db.maybeOne(named('request_cancel', z.object({ id: z.string() }))`
    WITH moved AS (
      UPDATE proposals SET
        cancel_requested_at = now(), cancel_requested_by = ${input.userId}, version = version + 1
      WHERE id = ${input.proposalId} AND status = 'processing' AND cancel_requested_at IS NULL
      RETURNING id, thread_id, version, phase, attempt
    ), noted AS (
      INSERT INTO proposal_transitions
        (id, proposal_id, row_version, from_state, to_state, event, actor_user_id, attempt)
      SELECT gen_random_uuid(), id, version, phase, phase, 'cancel', ${input.userId}::text, attempt FROM moved
    )
    SELECT id, pg_notify('threads', thread_id::text) FROM moved`);
  if (moved) return 'ok';
  const state = await db.one(named('cancel_state', cancelState)`
    SELECT status, error, cancel_requested_at IS NOT NULL AS requested
    FROM proposals WHERE id = ${input.proposalId}`);
  const cancelled =
    (state.status === 'processing' && state.requested) ||
    (state.status === 'failed' && state.error?.code === 'cancelled');
  return cancelled ? 'already_cancelled' : 'not_processing';
};

/**
 * Expires proposals that nobody decided for `olderThanMs` after their completion: their checkpoints go, files and
 * audit stay. One transaction each, so that none waits for another's workflow.
 *
 * @returns the ids that were expired, at most `limit`
 */
export const expireUndecided = async (
  pool: CommonQueryMethods,
  input: { readonly olderThanMs: number; readonly limit: number },
): Promise<string[]> => {
  const candidates = await pool.any(
    named('list_undecided', z.object({ id: z.string(), workflowId: z.string() }))`
    SELECT id, workflow_id AS "workflowId" FROM proposals
    WHERE status = 'completed' AND completed_at < now() - ${input.olderThanMs} * interval '1 millisecond'
    ORDER BY completed_at LIMIT ${input.limit}`,
  );
  const expired: string[] = [];
  for (const { id, workflowId } of candidates) {
    const ids = await pool.transaction(async (tx) => {
      if (!(await lockWorkflow(tx, workflowId))) return [];
      await tx.query(
        named('lock_undecided', z.object({}))`SELECT 1 FROM proposals WHERE id = ${id} FOR NO KEY UPDATE`,
      );
      return resolveProposals(tx, { ids: [id], resolution: 'expired', userId: null, details: null });
    });
    expired.push(...ids);
  }
  return expired;
};
