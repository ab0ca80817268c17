import { randomUUID } from 'node:crypto';
import { type DatabasePool, sql } from 'slonik';
import { z } from 'zod';
import { type GeneratedFiles, sha256Of } from '../../src/db/conflict-rule.js';
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

export interface SeededProposal {
  readonly workflowId: string;
  readonly proposalId: string;
  readonly threadId: string;
}

const seeded = z.object({ workflowId: z.string(), proposalId: z.string(), threadId: z.string() });

/** Many workflows of a user, each with the draft `{path: before}` and a completed proposal of `{path: after}`, in one statement. */
export const seedManyCompleted = async (
  pool: DatabasePool,
  options: { count: number; userId: string; path: string; before: string; after: string },
): Promise<SeededProposal[]> => {
  const { count, userId, path, before, after } = options;
  const hash = sha256Of(before);
  const generated = JSON.stringify({ [path]: wireFile(after) });
  const rows = await pool.any(sql.type(seeded)`
    WITH person AS (INSERT INTO users (id) VALUES (${userId}) ON CONFLICT DO NOTHING),
    w AS (
      INSERT INTO workflows (id, user_id, name, draft_revision)
      SELECT gen_random_uuid(), ${userId}, 'seeded', 1 FROM generate_series(1, ${count}::integer) RETURNING id
    ), d AS (INSERT INTO drafts (workflow_id) SELECT id FROM w RETURNING id, workflow_id),
    f AS (INSERT INTO draft_files (draft_id, path, content, sha256, revision) SELECT id, ${path}, ${before}, ${hash}, 1 FROM d),
    p AS (
      INSERT INTO proposals (
        id, workflow_id, draft_id, created_by_user_id, thread_id, status, phase, user_prompt, base_revision,
        base_hashes, input, generated_files, deadline_at, completed_at, version)
      SELECT gen_random_uuid(), workflow_id, id, ${userId}, gen_random_uuid(), 'completed', NULL, 'x', 1,
             jsonb_build_object(${path}::text, ${hash}::text), '', ${generated}::jsonb, now(), now(), 2
      FROM d RETURNING id, workflow_id, thread_id
    ), a AS (
      INSERT INTO attempts (proposal_id, attempt, job_id, outcome, ended_at) SELECT id, 1, thread_id, 'completed', now() FROM p
    ), x AS (INSERT INTO proposal_access (proposal_id, user_id, role) SELECT id, ${userId}, 'owner' FROM p),
    n AS (
      INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt)
      SELECT gen_random_uuid(), p.id, s.version, s.from_state, s.to_state, s.event, 1
      FROM p, (VALUES (1, NULL, 'invoking', 'start'), (2, 'streaming', 'completed', 'runtime.ended'))
        AS s (version, from_state, to_state, event)
    )
    SELECT id AS "proposalId", workflow_id AS "workflowId", thread_id AS "threadId" FROM p`);
  return [...rows];
};
