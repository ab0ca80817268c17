import type { Draft, Proposal, SpecificationFile, Version, Workflow } from '@ide-orchestrator/protocol';
import type { DraftFile, DraftRow, ProposalRow, VersionRow, WorkflowRow } from '../db/row-schemas.js';

/** Rows as the API shows them: snake_case, and nothing of what only we need. */
export function workflowOf(row: WorkflowRow): Workflow {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    production_version: row.productionVersion,
    created_at: row.createdAt,
    updated_at: row.updatedAt,
  };
}

export function draftOf(row: DraftRow): Draft {
  return { id: row.id, revision: row.revision, files: filesOf(row.files) };
}

export function versionOf(row: VersionRow): Version {
  return {
    version_number: row.versionNumber,
    created_at: row.createdAt,
    created_by_user_id: row.createdByUserId,
    ...(row.files === undefined ? {} : { files: filesOf(row.files) }),
  };
}

export function proposalOf(row: ProposalRow): Proposal {
  return {
    id: row.id,
    workflow_id: row.workflowId,
    draft_id: row.draftId,
    thread_id: row.threadId,
    status: row.status,
    phase: row.phase,
    resolution: row.resolution,
    user_prompt: row.userPrompt,
    context_file_path: row.contextFilePath,
    context_selection: row.contextSelection,
    base_revision: row.baseRevision,
    generated_files: row.generatedFiles,
    warnings: row.warnings.map(({ code, path, message }) => ({
      code,
      message,
      ...(path === undefined ? {} : { path }),
    })),
    error:
      row.error === null
        ? null
        : { code: row.error.code, message: row.error.message, retryable: row.error.retryable ?? true },
    attempt: row.attempt,
    created_at: row.createdAt,
    completed_at: row.completedAt,
    resolved_at: row.resolvedAt,
    resolved_by_user_id: row.resolvedByUserId,
  };
}

function filesOf(files: Readonly<Record<string, DraftFile>>): Record<string, SpecificationFile> {
  return Object.fromEntries(
    Object.entries(files).map(([path, file]) => [
      path,
      {
        content: file.content,
        type: mediaTypeOf(path),
        sha256: file.sha256,
        revision: file.revision,
        updated_at: file.updatedAt,
      },
    ]),
  );
}

function mediaTypeOf(path: string): string {
  if (/\.(md|markdown)$/i.test(path)) return 'text/markdown';
  return /\.json$/i.test(path) ? 'application/json' : 'text/plain';
}
