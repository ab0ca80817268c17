import { limits, utf8Length } from '@ide-orchestrator/protocol';
import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { findDraft, makeDraft, writeDraftFiles } from './draft-files.js';
import { resolveProposals } from './resolve.js';
import type { DraftFile, DraftRow } from './row-schemas.js';
import { named, noRow } from './statement.js';
import { lockOwnWorkflow, raiseRevision } from './workflows.js';

export { findDraft } from './draft-files.js';

const pathRevision = z.object({ path: z.string(), revision: z.number(), live: z.boolean() });

/** What was written, or deleted, under these paths and when, tombstones included. */
const revisionsOf = (tx: CommonQueryMethods, workflowId: string, paths: string[]) =>
  tx.any(named('draft_revisions', pathRevision)`
    SELECT f.path, f.revision, f.content IS NOT NULL AS live
    FROM draft_files f JOIN drafts d ON d.id = f.draft_id
    WHERE d.workflow_id = ${workflowId} AND f.path = ANY(${sql.array(paths, 'text')})`);

/** Why the draft may not become what the writes make of it; null where it may. One that grew by approvals may shrink. */
const growthFault = (
  before: Readonly<Record<string, DraftFile>>,
  writes: readonly (readonly [string, string | null])[],
): string | null => {
  const sizes = new Map(Object.entries(before).map(([path, file]) => [path, utf8Length(file.content)]));
  const bytes = () => [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const was = { files: sizes.size, bytes: bytes() };
  for (const [path, text] of writes) {
    if (text === null) sizes.delete(path);
    else sizes.set(path, utf8Length(text));
  }
  if (sizes.size > Math.max(limits.files, was.files)) return `a draft holds at most ${limits.files} files`;
  return bytes() > Math.max(limits.draftBytes, was.bytes)
    ? `a draft holds at most ${limits.draftBytes} bytes`
    : null;
};

/**
 * Merges into the draft: named paths are set, null deletes, others stay. Nothing is written where a named path was
 * written after `baseRevision`; without a draft a `baseRevision` of 0 conflicts with nothing.
 */
export const putDraft = (
  pool: CommonQueryMethods,
  input: {
    readonly workflowId: string;
    readonly userId: string;
    readonly baseRevision: number;
    readonly files: Readonly<Record<string, string | null>>;
  },
): Promise<
  | { kind: 'ok'; draft: DraftRow }
  | { kind: 'conflict'; conflicts: string[] }
  | { kind: 'too_large'; message: string }
  | { kind: 'not_found' }
> =>
  pool.transaction(async (tx) => {
    if (!(await lockOwnWorkflow(tx, input))) return { kind: 'not_found' };
    const existing = await findDraft(tx, input);
    const known = await revisionsOf(tx, input.workflowId, Object.keys(input.files));
    if (existing || input.baseRevision > 0) {
      const conflicts = known.filter((row) => row.revision > input.baseRevision).map((row) => row.path);
      if (conflicts.length > 0) return { kind: 'conflict', conflicts: conflicts.sort() };
    }
    const live = new Set(known.filter((row) => row.live).map((row) => row.path));
    const writes = Object.entries(input.files).filter(([path, text]) => text !== null || live.has(path));
    const message = growthFault(existing?.files ?? {}, writes);
    if (message !== null) return { kind: 'too_large', message };
    const { id } = existing ?? (await makeDraft(tx, input.workflowId));
    if (writes.length > 0) {
      await writeDraftFiles(tx, id, await raiseRevision(tx, input.workflowId), Object.fromEntries(writes));
    }
    const draft = await findDraft(tx, input);
    if (!draft) throw new Error('the draft that was just written is not there');
    return { kind: 'ok', draft };
  });

/**
 * Deletes the draft: its files become tombstones in a new revision, and the completed proposals that were made on it
 * are superseded, with audit records and clean-ups.
 */
export const deleteDraft = (
  pool: CommonQueryMethods,
  input: { readonly workflowId: string; readonly userId: string },
): Promise<'ok' | 'no_draft' | 'not_found'> =>
  pool.transaction(async (tx) => {
    if (!(await lockOwnWorkflow(tx, input))) return 'not_found';
    const completed = await tx.anyFirst(named('completed_of_draft', z.object({ id: z.string() }))`
      SELECT p.id FROM proposals p
      WHERE p.workflow_id = ${input.workflowId} AND p.status = 'completed' ORDER BY p.id FOR NO KEY UPDATE`);
    const draft = await tx.maybeOne(named('delete_draft', z.object({ id: z.string() }))`
      UPDATE drafts SET deleted_at = now() WHERE workflow_id = ${input.workflowId} AND deleted_at IS NULL
      RETURNING id`);
    if (!draft) return 'no_draft';
    const revision = await raiseRevision(tx, input.workflowId);
    await tx.query(named('bury_draft_files', noRow)`
      UPDATE draft_files SET content = NULL, sha256 = NULL, revision = ${revision}, updated_at = now()
      WHERE draft_id = ${draft.id} AND content IS NOT NULL`);
    await resolveProposals(tx, {
      ids: completed,
      resolution: 'superseded',
      userId: input.userId,
      details: { reason: 'draft_deleted' },
    });
    return 'ok';
  });
