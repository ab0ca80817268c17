import { randomUUID } from 'node:crypto';
import type { DatabasePool } from 'slonik';
import type { GeneratedFiles } from '../../src/db/conflict-rule.js';
import { startProposal } from '../../src/db/proposals.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitCompleted, type Fence } from '../../src/db/run-progress.js';
import { createWorkflow } from '../../src/db/workflows.js';

/** A file as the runtime sends it. */
export const wireFile = (text: string) => ({ content: text.split('\n') });

/** A workflow of `userId`; with `files` null it has no draft. */
export const seedWorkflow = async (
  pool: DatabasePool,
  options: { userId?: string; files?: Record<string, string> | null; name?: string } = {},
): Promise<{ workflowId: string; userId: string }> => {
  const workflowId = randomUUID();
  const userId = options.userId ?? 'ada';
  const files = options.files === undefined ? { '/a.md': 'a', '/b.md': 'b' } : options.files;
  await createWorkflow(pool, {
    id: workflowId,
    userId,
    name: options.name ?? 'Agent',
    description: null,
    files,
  });
  return { workflowId, userId };
};

/** A running proposal on the workflow's draft of now. */
export const seedProposal = async (
  pool: DatabasePool,
  workflow: { workflowId: string; userId: string },
  options: { ownerNode?: string; totalDeadlineMs?: number } = {},
): Promise<ThreadRow> => {
  const started = await startProposal(pool, {
    ...workflow,
    proposalId: randomUUID(),
    threadId: randomUUID(),
    transitionId: randomUUID(),
    userPrompt: 'Add web search',
    contextFilePath: null,
    contextSelection: null,
    buildInput: (files) => ({ files }),
    ownerNode: options.ownerNode ?? 'node-1',
    totalDeadlineMs: options.totalDeadlineMs ?? 60_000,
    idempotency: null,
    retryOf: null,
  });
  if (started.kind !== 'ok') throw new Error(`the seed was not started: ${started.kind}`);
  return started.row;
};

/** What the owner's next commit of this row carries. */
export const fenceOf = (row: { proposalId: string; ownerGeneration: number; version: number }): Fence => ({
  proposalId: row.proposalId,
  generation: row.ownerGeneration,
  version: row.version,
  transitionId: randomUUID(),
});

export const lastFrames = {
  epoch: '1.1',
  frames: [
    { seq: 7, bytes: Buffer.from('{"seq":7,"event_type":"on_state_update","data":{}}') },
    { seq: 8, bytes: Buffer.from('{"seq":8,"event_type":"end","data":{"é":"\\n"}}') },
  ],
};

/** Completes a running proposal with these texts by path; null deletes. */
export const completeWith = async (
  pool: DatabasePool,
  row: ThreadRow,
  files: Record<string, string | null>,
): Promise<void> => {
  const generatedFiles: GeneratedFiles = Object.fromEntries(
    Object.entries(files).map(([path, text]) => [path, text === null ? null : wireFile(text)]),
  );
  const done = await commitCompleted(pool, fenceOf(row), {
    from: 'finalizing',
    event: 'runtime.ended',
    attempt: row.attempt,
    generatedFiles,
    warnings: [],
    lastFrames,
    finalEpoch: '1.1',
  });
  if (!done) throw new Error('the seed was not completed');
};

/** A completed proposal on the workflow's draft of now. */
export const seedCompleted = async (
  pool: DatabasePool,
  workflow: { workflowId: string; userId: string },
  files: Record<string, string | null>,
): Promise<ThreadRow> => {
  const row = await seedProposal(pool, workflow);
  await completeWith(pool, row, files);
  return row;
};

/** The draft's texts by path, or null where there is no draft. */
export const textsOf = (draft: { files: Record<string, { content: string }> } | null) =>
  draft && Object.fromEntries(Object.entries(draft.files).map(([path, file]) => [path, file.content]));
