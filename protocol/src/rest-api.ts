import { z } from 'zod/v4';
import { limits } from './limits.js';
import { wireFiles } from './runtime-api.js';
import { fileContent, filePath, sha256, storable, timestamp, utf8Length, uuid } from './text.js';

const fileCount = (files: Record<string, unknown>) => Object.keys(files).length <= limits.files;
const fileCountRule = `must hold at most ${limits.files} files`;

const name = storable.trim().min(1).max(limits.nameCharacters);
const description = storable.max(limits.descriptionCharacters);

export const proposalStatus = z.enum(['processing', 'completed', 'failed', 'resolved']);
export type ProposalStatus = z.infer<typeof proposalStatus>;
export const proposalPhase = z.enum(['invoking', 'streaming', 'reconnecting', 'retrying', 'finalizing']);
export type ProposalPhase = z.infer<typeof proposalPhase>;
export const proposalResolution = z.enum(['approved', 'rejected', 'expired', 'superseded']);
export type ProposalResolution = z.infer<typeof proposalResolution>;

// Requests. Unknown fields are refused.

export const createWorkflowRequest = z
  .strictObject({
    name,
    description: description.nullish(),
    files: z.record(filePath, fileContent).refine(fileCount, fileCountRule).optional(),
  })
  .meta({ id: 'CreateWorkflow' });
export type CreateWorkflowRequest = z.infer<typeof createWorkflowRequest>;

export const updateWorkflowRequest = z
  .strictObject({ name: name.optional(), description: description.nullish() })
  .meta({ id: 'UpdateWorkflow' });

export const putDraftRequest = z
  .strictObject({
    base_revision: z.int().min(0),
    files: z.record(filePath, fileContent.nullable()).refine(fileCount, fileCountRule),
  })
  .meta({ id: 'PutDraft' });
export type PutDraftRequest = z.infer<typeof putDraftRequest>;

export const deployRequest = z
  .strictObject({ version_number: z.int().min(1).max(2_147_483_647) })
  .meta({ id: 'Deploy' });

export const startRefinementRequest = z
  .strictObject({
    user_prompt: storable
      .min(1)
      .max(limits.userPromptCharacters)
      .refine((text) => text.trim() !== '', 'must not be blank'),
    context_file_path: filePath.nullish(),
    context_selection: storable
      .refine(
        (text) => utf8Length(text) <= limits.contextSelectionBytes,
        `must be at most ${limits.contextSelectionBytes} bytes`,
      )
      .nullish(),
  })
  .meta({ id: 'StartRefinement' });
export type StartRefinementRequest = z.infer<typeof startRefinementRequest>;

export const approveRequest = z
  .strictObject({
    files: z
      .array(z.string())
      .max(limits.files * 4)
      // Judged with the proposal at hand and not here: a second approval is answered whatever it names.
      .meta({ minItems: 1, uniqueItems: true })
      .optional(),
    resolutions: z.record(z.string(), z.enum(['proposal', 'draft'])).optional(),
  })
  .meta({ id: 'Approve' });
export type ApproveRequest = z.infer<typeof approveRequest>;

export const rejectRequest = z
  .strictObject({ reason: storable.max(limits.reasonCharacters).nullish() })
  .meta({ id: 'Reject' });

export const emptyRequest = z.strictObject({}).meta({ id: 'Empty' });

export const createTicketRequest = z.strictObject({ thread_id: z.string() }).meta({ id: 'CreateTicket' });

export const pageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(limits.pageSize).default(limits.defaultPageSize),
  cursor: z.string().min(1).max(512).optional(),
});
export const proposalsQuery = pageQuery.extend({ status: proposalStatus.optional() });

// Answers.

export const workflow = z
  .object({
    id: uuid,
    name: z.string(),
    description: z.string().nullable(),
    production_version: z.int().nullable(),
    created_at: timestamp,
    updated_at: timestamp,
  })
  .meta({ id: 'Workflow' });
export type Workflow = z.infer<typeof workflow>;

export const specificationFile = z
  .object({
    content: z.string(),
    type: z.string(),
    sha256,
    revision: z.int(),
    updated_at: timestamp,
  })
  .meta({ id: 'SpecificationFile' });
export type SpecificationFile = z.infer<typeof specificationFile>;

export const draft = z
  .object({ id: uuid, revision: z.int(), files: z.record(z.string(), specificationFile) })
  .meta({ id: 'Draft' });
export type Draft = z.infer<typeof draft>;

export const version = z
  .object({
    version_number: z.int(),
    created_at: timestamp,
    created_by_user_id: z.string(),
    files: z.record(z.string(), specificationFile).optional(),
  })
  .meta({ id: 'Version' });
export type Version = z.infer<typeof version>;

export const refinementStarted = z
  .object({
    proposal_id: uuid,
    thread_id: uuid,
    status: proposalStatus,
    websocket_url: z.string().startsWith('/api/ws/'),
    created_at: timestamp,
  })
  .meta({ id: 'RefinementStarted' });
export type RefinementStarted = z.infer<typeof refinementStarted>;

export const warning = z
  .object({ code: z.string(), path: z.string().optional(), message: z.string() })
  .meta({ id: 'Warning' });
export type Warning = z.infer<typeof warning>;

/** Why a proposal failed. */
export const proposalError = z
  .object({ code: z.string(), message: z.string(), retryable: z.boolean() })
  .meta({ id: 'ProposalError' });
export type ProposalError = z.infer<typeof proposalError>;

export const proposal = z
  .object({
    id: uuid,
    workflow_id: uuid,
    draft_id: uuid.nullable(),
    thread_id: uuid,
    status: proposalStatus,
    phase: proposalPhase.nullable(),
    resolution: proposalResolution.nullable(),
    user_prompt: z.string(),
    context_file_path: z.string().nullable(),
    context_selection: z.string().nullable(),
    base_revision: z.int(),
    generated_files: wireFiles.nullable(),
    warnings: z.array(warning),
    error: proposalError.nullable(),
    attempt: z.int(),
    created_at: timestamp,
    completed_at: timestamp.nullable(),
    resolved_at: timestamp.nullable(),
    resolved_by_user_id: z.string().nullable(),
  })
  .meta({ id: 'Proposal' });
export type Proposal = z.infer<typeof proposal>;

export const diffStatus = z.enum(['added', 'modified', 'removed', 'unchanged', 'conflict']);
export type DiffStatus = z.infer<typeof diffStatus>;
export const diffHunk = z
  .object({
    old_start: z.int(),
    old_lines: z.int(),
    new_start: z.int(),
    new_lines: z.int(),
    lines: z.array(z.string()),
  })
  .meta({ id: 'DiffHunk' });
export const proposalDiff = z
  .object({
    files: z.array(z.object({ path: z.string(), status: diffStatus, hunks: z.array(diffHunk) })),
  })
  .meta({ id: 'ProposalDiff' });
export type ProposalDiff = z.infer<typeof proposalDiff>;

export const approved = z
  .object({
    proposal_id: uuid,
    status: z.literal('resolved'),
    resolution: z.literal('approved'),
    draft_revision: z.int(),
    files_applied: z.int(),
  })
  .meta({ id: 'Approved' });
export const rejected = z
  .object({ proposal_id: uuid, status: z.literal('resolved'), resolution: z.literal('rejected') })
  .meta({ id: 'Rejected' });
export const cancelAccepted = z
  .object({ proposal_id: uuid, status: proposalStatus })
  .meta({ id: 'CancelAccepted' });

export const auditEntry = z
  .object({
    from: z.string().nullable(),
    to: z.string(),
    event: z.string(),
    actor_user_id: z.string().nullable(),
    attempt: z.int(),
    at: timestamp,
    details: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'AuditEntry' });
export const auditTrail = z.object({ items: z.array(auditEntry) }).meta({ id: 'AuditTrail' });

export const ticket = z.object({ ticket: z.string(), expires_at: timestamp }).meta({ id: 'Ticket' });

/** A page of a list; `next_cursor` is null at the end. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), next_cursor: z.string().nullable() });

export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string(),
    instance: z.string(),
    request_id: z.string(),
    errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
    conflicts: z.array(z.string()).optional(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457' });
export type Problem = z.infer<typeof problem>;
