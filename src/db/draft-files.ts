import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { sha256Of } from './conflict-rule.js';
import { type DraftRow, fileColumns, filesOf } from './row-schemas.js';
import { named, noRow } from './statement.js';

const draftLine = z.object({ id: z.string(), revision: z.number(), ...fileColumns });

/** The draft with its files, read by one statement; null where there is none or it was deleted. */
export const findDraft = async (
  db: CommonQueryMethods,
  input: { readonly workflowId: string },
): Promise<DraftRow | null> => {
  const lines = await db.any(named('find_draft', draftLine)`
    SELECT d.id, w.draft_revision AS revision, f.path, f.content, f.sha256, f.revision AS "fileRevision",
           f.updated_at AS "updatedAt"
    FROM drafts d
    JOIN workflows w ON w.id = d.workflow_id
    LEFT JOIN draft_files f ON f.draft_id = d.id AND f.content IS NOT NULL
    WHERE d.workflow_id = ${input.workflowId} AND d.deleted_at IS NULL AND w.deleted_at IS NULL
    ORDER BY f.path`);
  const first = lines[0];
  return first ? { id: first.id, revision: first.revision, files: filesOf(lines) } : null;
};

/** Makes the workflow's draft, or brings the deleted one back without any file. The workflow must be locked. */
export const makeDraft = (tx: CommonQueryMethods, workflowId: string): Promise<{ id: string }> =>
  tx.one(named('make_draft', z.object({ id: z.string() }))`
    INSERT INTO drafts (workflow_id) VALUES (${workflowId})
    ON CONFLICT (workflow_id) DO UPDATE SET deleted_at = NULL
    RETURNING id`);

/** Writes paths with the revision that wrote them; a text of null becomes a tombstone. */
export const writeDraftFiles = async (
  tx: CommonQueryMethods,
  draftId: string,
  revision: number,
  files: Readonly<Record<string, string | null>>,
): Promise<void> => {
  const rows = Object.entries(files).map(([path, text]) => [
    path,
    text,
    text === null ? null : sha256Of(text),
  ]);
  if (rows.length === 0) return;
  await tx.query(named('write_draft_files', noRow)`
    INSERT INTO draft_files (draft_id, path, content, sha256, revision)
    SELECT ${draftId}::uuid, path, content, sha256, ${revision}::integer
    FROM ${sql.unnest(rows, ['text', 'text', 'text'])} AS f (path, content, sha256)
    ON CONFLICT (draft_id, path) DO UPDATE SET
      content = EXCLUDED.content, sha256 = EXCLUDED.sha256, revision = EXCLUDED.revision, updated_at = now()`);
};
