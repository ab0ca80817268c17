import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import type { GeneratedFiles } from './conflict-rule.js';
import { findDraft } from './draft-files.js';
import {
  type AccessRole,
  type DraftRow,
  generatedFilesSchema,
  type ProposalRow,
  type ProposalStatus,
  proposalRow,
  statusSchema,
} from './row-schemas.js';
import { named } from './statement.js';
import { type StoredFrame, unpackFrames, unpackJson } from './stored-bytes.js';
import type { CreatedCursor } from './workflows.js';

export {
  keepStart,
  startProposal,
  wasStarted,
} from './start-proposal.js';
export {
  listReviveable,
  readAttempts,
  readThread,
  rereadThreads,
  takeOver,
  unfinishedOwnedBy,
} from './threads.js';

const columns = sql.fragment`
  p.id, p.workflow_id AS "workflowId", p.draft_id AS "draftId", p.thread_id AS "threadId", p.status, p.phase,
  p.resolution, p.user_prompt AS "userPrompt", p.context_file_path AS "contextFilePath",
  p.context_selection AS "contextSelection", p.base_revision AS "baseRevision",
  p.generated_files AS "generatedFiles", p.warnings, p.error, p.attempt, p.created_at AS "createdAt",
  p.completed_at AS "completedAt", p.resolved_at AS "resolvedAt", p.resolved_by_user_id AS "resolvedByUserId",
  p.created_by_user_id AS "createdByUserId", p.retry_of AS "retryOf", p.version, p.base_hashes AS "baseHashes",
  p.owner_node AS "ownerNode", p.owner_generation AS "ownerGeneration",
  p.cancel_requested_at AS "cancelRequestedAt"`;

const role = z.enum(['owner', 'viewer']);
const withAccess = proposalRow.extend({ access: role });

/** The proposal and what the user may do with it; null where the user has no access or the workflow is deleted. */
export const findProposalFor = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string; readonly userId: string },
): Promise<{ row: ProposalRow; access: AccessRole } | null> => {
  const found = await db.maybeOne(named('find_proposal', withAccess)`
    SELECT ${columns}, x.role AS access
    FROM proposals p
    JOIN proposal_access x ON x.proposal_id = p.id AND x.user_id = ${input.userId}
    JOIN workflows w ON w.id = p.workflow_id AND w.deleted_at IS NULL
    WHERE p.id = ${input.proposalId}`);
  if (!found) return null;
  const { access, ...row } = found;
  return { row, access };
};

const threadAccess = z.object({
  proposalId: z.string(),
  workflowId: z.string(),
  access: role,
  accessVersion: z.number(),
  status: statusSchema,
});

/** What the user may do with the thread, and the access version that this answer belongs to (`guarantees.md` 19). */
export const findThreadFor = (
  db: CommonQueryMethods,
  input: { readonly threadId: string; readonly userId: string },
): Promise<z.infer<typeof threadAccess> | null> =>
  db.maybeOne(named('find_thread', threadAccess)`
    SELECT p.id AS "proposalId", p.workflow_id AS "workflowId", x.role AS access,
           p.access_version AS "accessVersion", p.status
    FROM proposals p
    JOIN proposal_access x ON x.proposal_id = p.id AND x.user_id = ${input.userId}
    JOIN workflows w ON w.id = p.workflow_id AND w.deleted_at IS NULL
    WHERE p.thread_id = ${input.threadId}`);

/** A workflow's proposals, newest first, at most `limit`, beginning after `cursor`. The caller checks the workflow. */
export const listProposals = async (
  db: CommonQueryMethods,
  input: {
    readonly workflowId: string;
    readonly status?: ProposalStatus | undefined;
    readonly limit: number;
    readonly cursor: CreatedCursor | null;
  },
): Promise<ProposalRow[]> => {
  const after = input.cursor
    ? sql.fragment`AND (p.created_at, p.id) < (${input.cursor.createdAt}::timestamptz, ${input.cursor.id}::uuid)`
    : sql.fragment``;
  const only = input.status ? sql.fragment`AND p.status = ${input.status}` : sql.fragment``;
  return [
    ...(await db.any(named('list_proposals', proposalRow)`
      SELECT ${columns} FROM proposals p
      WHERE p.workflow_id = ${input.workflowId} ${only} ${after}
      ORDER BY p.created_at DESC, p.id DESC LIMIT ${input.limit}`)),
  ];
};

/** What every invoke of the proposal sends; null where there is no such proposal. */
export const readInput = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<unknown> => {
  const packed = await db.maybeOneFirst(named('read_input', z.object({ input: z.instanceof(Buffer) }))`
    SELECT input FROM proposals WHERE id = ${input.proposalId}`);
  return packed ? unpackJson(packed) : null;
};

/** The frames that close the thread for every viewer, in order, byte for byte. */
export interface LastFrames {
  readonly epoch: string;
  readonly frames: readonly StoredFrame[];
  /** The last number of each epoch before, by epoch. */
  readonly earlierEpochsLast?: Readonly<Record<string, number>>;
}

/** The stored last frames; null while there are none. */
export const readLastFrames = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<LastFrames | null> => {
  const packed = await db.maybeOneFirst(
    named('read_last_frames', z.object({ lastFrames: z.instanceof(Buffer).nullable() }))`
    SELECT last_frames AS "lastFrames" FROM proposals WHERE id = ${input.proposalId}`,
  );
  if (!packed) return null;
  const { header, frames } = await unpackFrames(packed);
  const { epoch, earlierEpochsLast } = lastFramesHeader.parse(header);
  return { epoch, frames, ...(earlierEpochsLast ? { earlierEpochsLast } : {}) };
};
const lastFramesHeader = z.object({ epoch: z.string(), earlierEpochsLast: z.record(z.number()).optional() });

/** How many proposals are in each status; every status is there. */
export const proposalCounts = async (db: CommonQueryMethods): Promise<Record<ProposalStatus, number>> => {
  const rows = await db.any(named('proposal_counts', z.object({ status: statusSchema, count: z.number() }))`
    SELECT status, count(*) AS count FROM proposals GROUP BY status`);
  const counts = { processing: 0, completed: 0, failed: 0, resolved: 0 };
  for (const { status, count } of rows) counts[status] = count;
  return counts;
};

/** What a diff or an approval compares: the hashes that the run started from, the draft of now, the run's files. */
export const findBaseAndDraft = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<{
  baseHashes: Record<string, string>;
  draft: DraftRow | null;
  generatedFiles: GeneratedFiles | null;
} | null> => {
  const compared = z.object({
    workflowId: z.string(),
    baseHashes: z.record(z.string()),
    generatedFiles: generatedFilesSchema.nullable(),
  });
  const row = await db.maybeOne(named('find_base', compared)`
    SELECT workflow_id AS "workflowId", base_hashes AS "baseHashes", generated_files AS "generatedFiles"
    FROM proposals WHERE id = ${input.proposalId}`);
  if (!row) return null;
  const draft = await findDraft(db, { workflowId: row.workflowId });
  return { baseHashes: row.baseHashes, draft, generatedFiles: row.generatedFiles };
};
