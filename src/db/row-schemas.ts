import { z } from 'zod';

/** RFC 3339, UTC, milliseconds: the pool's type parser makes it so. */
const time = z.string();

export const statusSchema = z.enum(['processing', 'completed', 'failed', 'resolved']);
const phaseSchema = z.enum(['invoking', 'streaming', 'reconnecting', 'retrying', 'finalizing']);
export const resolutionSchema = z.enum(['approved', 'rejected', 'expired', 'superseded']);
export type ProposalStatus = z.infer<typeof statusSchema>;
export type ProposalPhase = z.infer<typeof phaseSchema>;
export type ProposalResolution = z.infer<typeof resolutionSchema>;
export type AccessRole = 'owner' | 'viewer';

export const errorSchema = z.object({
  code: z.string(),
  message: z.string(),
  retryable: z.boolean().optional(),
});
const warningSchema = z.object({ code: z.string(), path: z.string().optional(), message: z.string() });
const wireFileSchema = z.object({ content: z.array(z.string()) }).passthrough();
export const generatedFilesSchema = z.record(wireFileSchema.nullable());

/** Why a proposal failed, as viewers and the API see it. */
export interface ProposalError {
  readonly code: string;
  readonly message: string;
  readonly retryable?: boolean | undefined;
}
/** Something that was left out of the result, e.g. `unsafe_path`. */
export interface ProposalWarning {
  readonly code: string;
  readonly path?: string | undefined;
  readonly message: string;
}

export const workflowRow = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  productionVersion: z.number().nullable(),
  draftRevision: z.number(),
  createdAt: time,
  updatedAt: time,
});
export type WorkflowRow = z.infer<typeof workflowRow>;

export interface DraftFile {
  readonly content: string;
  readonly sha256: string;
  readonly revision: number;
  readonly updatedAt: string;
}
export interface DraftRow {
  readonly id: string;
  readonly revision: number;
  readonly files: Record<string, DraftFile>;
}
export interface VersionRow {
  readonly versionNumber: number;
  readonly createdAt: string;
  readonly createdByUserId: string;
  /** Left out in lists. */
  readonly files?: Record<string, DraftFile>;
}

/** One line of a draft or version joined with its files; the file's columns are null where there is none. */
export const fileColumns = {
  path: z.string().nullable(),
  content: z.string().nullable(),
  sha256: z.string().nullable(),
  fileRevision: z.number().nullable(),
  updatedAt: time.nullable(),
};
const fileLine = z.object(fileColumns);

/** Files by path from joined lines; tombstones are left out. */
export const filesOf = (lines: readonly z.infer<typeof fileLine>[]): Record<string, DraftFile> => {
  const files: [string, DraftFile][] = [];
  for (const { path, content, sha256, fileRevision, updatedAt } of lines) {
    if (path === null || content === null || sha256 === null) continue;
    files.push([path, { content, sha256, revision: fileRevision ?? 0, updatedAt: updatedAt ?? '' }]);
  }
  return Object.fromEntries(files);
};

export const proposalRow = z.object({
  id: z.string(),
  workflowId: z.string(),
  draftId: z.string(),
  threadId: z.string(),
  status: statusSchema,
  phase: phaseSchema.nullable(),
  resolution: resolutionSchema.nullable(),
  userPrompt: z.string(),
  contextFilePath: z.string().nullable(),
  contextSelection: z.string().nullable(),
  baseRevision: z.number(),
  generatedFiles: generatedFilesSchema.nullable(),
  warnings: z.array(warningSchema),
  error: errorSchema.nullable(),
  attempt: z.number(),
  createdAt: time,
  completedAt: time.nullable(),
  resolvedAt: time.nullable(),
  resolvedByUserId: z.string().nullable(),
  createdByUserId: z.string(),
  retryOf: z.string().nullable(),
  version: z.number(),
  baseHashes: z.record(z.string()),
  ownerNode: z.string().nullable(),
  ownerGeneration: z.number(),
  cancelRequestedAt: time.nullable(),
});
export type ProposalRow = z.infer<typeof proposalRow>;

export const threadRow = z.object({
  proposalId: z.string(),
  threadId: z.string(),
  workflowId: z.string(),
  status: statusSchema,
  phase: phaseSchema.nullable(),
  resolution: resolutionSchema.nullable(),
  attempt: z.number(),
  jobId: z.string(),
  runtimeThreadId: z.string().nullable(),
  runtimeEpoch: z.string().nullable(),
  ownerNode: z.string().nullable(),
  ownerGeneration: z.number(),
  takenOver: z.number(),
  version: z.number(),
  accessVersion: z.number(),
  cancelRequestedAt: time.nullable(),
  /** From the read to the proposal's deadline, on database time; negative once it has passed. */
  deadlineInMs: z.number(),
  createdAt: time,
  error: errorSchema.nullable(),
  finalEpoch: z.string().nullable(),
});
/** A thread without its files and input: what an actor is revived from. */
export type ThreadRow = z.infer<typeof threadRow>;
