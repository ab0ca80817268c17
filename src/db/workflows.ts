import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { makeDraft, writeDraftFiles } from './draft-files.js';
import { resolveProposals } from './resolve.js';
import { type WorkflowRow, workflowRow } from './row-schemas.js';
import { named, noRow } from './statement.js';
import { ensureUser } from './users.js';

const columns = sql.fragment`
  id, name, description, production_version AS "productionVersion", draft_revision AS "draftRevision",
  created_at AS "createdAt", updated_at AS "updatedAt"`;

/** The place after the last row of a page. */
export interface CreatedCursor {
  readonly createdAt: string;
  readonly id: string;
}

/** Creates a workflow; `files`, where given, make its draft with revision 1. */
export const createWorkflow = (
  db: CommonQueryMethods,
  input: {
    readonly id: string;
    readonly userId: string;
    readonly name: string;
    readonly description: string | null;
    readonly files: Readonly<Record<string, string>> | null;
  },
): Promise<WorkflowRow> =>
  db.transaction(async (tx) => {
    await ensureUser(tx, input.userId);
    const row = await tx.one(named('create_workflow', workflowRow)`
      INSERT INTO workflows (id, user_id, name, description, draft_revision)
      VALUES (${input.id}, ${input.userId}, ${input.name}, ${input.description}, ${input.files ? 1 : 0})
      RETURNING ${columns}`);
    if (input.files) {
      const draft = await makeDraft(tx, input.id);
      await writeDraftFiles(tx, draft.id, row.draftRevision, input.files);
    }
    return row;
  });

/** The user's workflows, newest first, at most `limit`, beginning after `cursor`. */
export const listWorkflows = async (
  db: CommonQueryMethods,
  input: { readonly userId: string; readonly limit: number; readonly cursor: CreatedCursor | null },
): Promise<WorkflowRow[]> => {
  const after = input.cursor
    ? sql.fragment`AND (created_at, id) < (${input.cursor.createdAt}::timestamptz, ${input.cursor.id}::uuid)`
    : sql.fragment``;
  return [
    ...(await db.any(named('list_workflows', workflowRow)`
      SELECT ${columns} FROM workflows
      WHERE user_id = ${input.userId} AND deleted_at IS NULL ${after}
      ORDER BY created_at DESC, id DESC LIMIT ${input.limit}`)),
  ];
};

/** The workflow, for its owner only; null where it is another's, deleted or unknown. */
export const findWorkflow = (
  db: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string },
): Promise<WorkflowRow | null> =>
  db.maybeOne(named('find_workflow', workflowRow)`
    SELECT ${columns} FROM workflows
    WHERE id = ${input.workflowId} AND user_id = ${input.userId} AND deleted_at IS NULL`);

/** Changes name or description; what is not given stays, a `description` of null is taken away. */
export const updateWorkflow = (
  db: CommonQueryMethods,
  input: {
    readonly workflowId: string;
    readonly userId: string;
    readonly name?: string | undefined;
    readonly description?: string | null | undefined;
  },
): Promise<WorkflowRow | null> =>
  db.maybeOne(named('update_workflow', workflowRow)`
    UPDATE workflows SET
      name = COALESCE(${input.name ?? null}, name),
      description = CASE WHEN ${input.description !== undefined} THEN ${input.description ?? null} ELSE description END,
      updated_at = now()
    WHERE id = ${input.workflowId} AND user_id = ${input.userId} AND deleted_at IS NULL
    RETURNING ${columns}`);

/** The row that everything about one workflow's draft, versions and decisions is serialised by (`guarantees.md` 5). */
export const lockWorkflow = (
  tx: CommonQueryMethods,
  workflowId: string,
): Promise<{ userId: string; draftRevision: number } | null> =>
  tx.maybeOne(named('lock_workflow', z.object({ userId: z.string(), draftRevision: z.number() }))`
    SELECT user_id AS "userId", draft_revision AS "draftRevision" FROM workflows
    WHERE id = ${workflowId} AND deleted_at IS NULL FOR NO KEY UPDATE`);

/** As {@link lockWorkflow}, for its owner only. */
export const lockOwnWorkflow = async (
  tx: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string },
): Promise<{ draftRevision: number } | null> => {
  const workflow = await lockWorkflow(tx, input.workflowId);
  return workflow?.userId === input.userId ? workflow : null;
};

/** Raises the counter that outlives every draft, and answers with the new revision. The workflow must be locked. */
export const raiseRevision = (tx: CommonQueryMethods, workflowId: string): Promise<number> =>
  tx.oneFirst(named('raise_revision', z.object({ revision: z.number() }))`
    UPDATE workflows SET draft_revision = draft_revision + 1, updated_at = now() WHERE id = ${workflowId}
    RETURNING draft_revision AS revision`);

/**
 * Marks the workflow as deleted. In the same transaction its running proposals are asked to cancel, and its completed
 * ones are superseded, with their clean-ups (`guarantees.md` 3–6). Nobody may look at a running one any more, its owner
 * neither: the raised `access_version` lets open sockets be found (19).
 *
 * @returns false where the user has no such workflow
 */
export const deleteWorkflow = (
  pool: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string },
): Promise<boolean> =>
  pool.transaction(async (tx) => {
    if (!(await lockOwnWorkflow(tx, input))) return false;
    await tx.query(named('lock_proposals', noRow)`
      SELECT 1 FROM proposals
      WHERE workflow_id = ${input.workflowId} AND status IN ('processing', 'completed') ORDER BY id FOR NO KEY UPDATE`);
    await tx.any(named('cancel_of_workflow', noRow)`
      WITH running AS (
        SELECT id, cancel_requested_at IS NULL AS fresh FROM proposals
        WHERE workflow_id = ${input.workflowId} AND status = 'processing'
      ), moved AS (
        UPDATE proposals p SET
          cancel_requested_at = COALESCE(cancel_requested_at, now()),
          cancel_requested_by = COALESCE(cancel_requested_by, ${input.userId}),
          access_version = access_version + 1, version = version + 1
        FROM running WHERE p.id = running.id
        RETURNING p.id, thread_id, version, phase, attempt, fresh
      ), noted AS (
        INSERT INTO proposal_transitions
          (id, proposal_id, row_version, from_state, to_state, event, actor_user_id, attempt, details)
        SELECT gen_random_uuid(), id, version, phase, phase, 'cancel', ${input.userId}, attempt,
               '{"reason":"workflow_deleted"}'::jsonb
        FROM moved WHERE fresh
      )
      SELECT pg_notify('threads', thread_id::text) FROM moved`);
    const completed = await tx.anyFirst(named('completed_of_workflow', z.object({ id: z.string() }))`
      SELECT id FROM proposals WHERE workflow_id = ${input.workflowId} AND status = 'completed' ORDER BY id`);
    await resolveProposals(tx, {
      ids: completed,
      resolution: 'superseded',
      userId: input.userId,
      details: { reason: 'workflow_deleted' },
    });
    await tx.query(named('mark_workflow_deleted', noRow)`
      UPDATE workflows SET deleted_at = now(), updated_at = now() WHERE id = ${input.workflowId}`);
    return true;
  });
