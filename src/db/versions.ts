import type { CommonQueryMethods } from 'slonik';
import { z } from 'zod';
import { fileColumns, filesOf, type VersionRow, type WorkflowRow } from './row-schemas.js';
import { named, noRow } from './statement.js';
import { findWorkflow, lockOwnWorkflow } from './workflows.js';

const versionRow = z.object({
  versionNumber: z.number(),
  createdAt: z.string(),
  createdByUserId: z.string(),
});
const versionLine = versionRow.extend(fileColumns);

/** Publishes the draft of now as the next version, which never changes again; the draft stays. */
export const publishVersion = (
  pool: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string },
): Promise<VersionRow | 'no_draft' | 'not_found'> =>
  pool.transaction(async (tx) => {
    if (!(await lockOwnWorkflow(tx, input))) return 'not_found';
    const draft = await tx.maybeOne(named('lock_draft', z.object({ id: z.string() }))`
      SELECT id FROM drafts WHERE workflow_id = ${input.workflowId} AND deleted_at IS NULL FOR NO KEY UPDATE`);
    if (!draft) return 'no_draft';
    const version = await tx.one(named('publish_version', versionRow)`
      INSERT INTO versions (workflow_id, version_number, created_by_user_id)
      SELECT ${input.workflowId}::uuid, COALESCE(max(version_number), 0) + 1, ${input.userId}
      FROM versions WHERE workflow_id = ${input.workflowId}
      RETURNING version_number AS "versionNumber", created_at AS "createdAt", created_by_user_id AS "createdByUserId"`);
    await tx.query(named('publish_files', noRow)`
      INSERT INTO version_files (workflow_id, version_number, path, content, sha256, revision, updated_at)
      SELECT ${input.workflowId}::uuid, ${version.versionNumber}, path, content, sha256, revision, updated_at
      FROM draft_files WHERE draft_id = ${draft.id} AND content IS NOT NULL`);
    const published = await findVersion(tx, { ...input, versionNumber: version.versionNumber });
    return published ?? version;
  });

/** Versions without their files, newest first, below `beforeVersion` where given. */
export const listVersions = async (
  db: CommonQueryMethods,
  input: { readonly workflowId: string; readonly limit: number; readonly beforeVersion: number | null },
): Promise<VersionRow[]> => [
  ...(await db.any(named('list_versions', versionRow)`
    SELECT version_number AS "versionNumber", created_at AS "createdAt", created_by_user_id AS "createdByUserId"
    FROM versions
    WHERE workflow_id = ${input.workflowId}
      AND version_number < COALESCE(${input.beforeVersion}::integer, 2147483647)
    ORDER BY version_number DESC LIMIT ${input.limit}`)),
];

/** One version with its files. */
export const findVersion = async (
  db: CommonQueryMethods,
  input: { readonly workflowId: string; readonly versionNumber: number },
): Promise<VersionRow | null> => {
  const lines = await db.any(named('find_version', versionLine)`
    SELECT v.version_number AS "versionNumber", v.created_at AS "createdAt",
           v.created_by_user_id AS "createdByUserId", f.path, f.content, f.sha256, f.revision AS "fileRevision",
           f.updated_at AS "updatedAt"
    FROM versions v LEFT JOIN version_files f USING (workflow_id, version_number)
    WHERE v.workflow_id = ${input.workflowId} AND v.version_number = ${input.versionNumber}
    ORDER BY f.path`);
  const first = lines[0];
  if (!first) return null;
  const { versionNumber, createdAt, createdByUserId } = first;
  return { versionNumber, createdAt, createdByUserId, files: filesOf(lines) };
};

/** Makes a published version the workflow's production version. */
export const deployVersion = (
  pool: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string; readonly versionNumber: number },
): Promise<WorkflowRow | 'not_found' | 'no_version'> =>
  pool.transaction(async (tx) => {
    if (!(await lockOwnWorkflow(tx, input))) return 'not_found';
    const deployed = await tx.query(named('deploy_version', noRow)`
      UPDATE workflows SET production_version = ${input.versionNumber}, updated_at = now()
      WHERE id = ${input.workflowId} AND EXISTS (
        SELECT 1 FROM versions WHERE workflow_id = ${input.workflowId} AND version_number = ${input.versionNumber})`);
    if (deployed.rowCount === 0) return 'no_version';
    return (await findWorkflow(tx, input)) ?? 'not_found';
  });
