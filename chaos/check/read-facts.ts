import { createHash } from 'node:crypto';
import type pg from 'pg';
import { withConnection } from '../../src/db/brief-connection.js';
import type { Attempt, DraftFacts, ProposalFacts, RunFacts, Transition } from './facts.js';

export interface AllFacts {
  proposals: ProposalFacts[];
  /** By workflow. */
  drafts: Map<string, DraftFacts>;
  /** By job. */
  runs: Map<string, RunFacts>;
  outbox: number;
}

type Lines = { content: string[] } | null;

export const withDatabase = <Result>(
  url: string,
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> =>
  withConnection({ connectionString: url, connectionTimeoutMillis: 10_000, query_timeout: 60_000 }, work);

export const textsOf = (files: Record<string, Lines>): Record<string, string | null> =>
  Object.fromEntries(
    Object.entries(files).map(([path, file]) => [path, file === null ? null : file.content.join('\n')]),
  );

export const hashesOf = (files: Readonly<Record<string, string | null>>): Record<string, string | null> =>
  Object.fromEntries(
    Object.entries(files).map(([path, text]) => [
      path,
      text === null ? null : createHash('sha256').update(text).digest('hex'),
    ]),
  );

/** What still moves: proposals whose run goes on, and clean-ups that are not delivered. */
export const unfinished = (url: string): Promise<number> =>
  withDatabase(url, async (client) => {
    const { rows } = await client.query<{ left: number }>(
      `SELECT (SELECT count(*) FROM proposals WHERE status = 'processing')::int
            + (SELECT count(*) FROM outbox)::int AS left`,
    );
    return rows[0]?.left ?? 0;
  });

/** Reads both databases as they are when nothing moves any more. */
export async function readFacts(urls: { orchestrator: string; runtime: string }): Promise<AllFacts> {
  const runs = await withDatabase(urls.runtime, readRuns);
  return withDatabase(urls.orchestrator, async (client) => {
    const transitions = await grouped<Transition>(
      client,
      `SELECT proposal_id AS of, row_version AS "rowVersion", from_state AS "from", to_state AS "to", event, attempt,
              (extract(epoch FROM at) * 1000)::float8 AS at,
              floor(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::float8 AS "committedAt",
              details->>'from_node' AS "fromNode"
       FROM proposal_transitions ORDER BY proposal_id, row_version`,
    );
    const attempts = await grouped<Attempt>(
      client,
      'SELECT proposal_id AS of, attempt, job_id AS "jobId", outcome FROM attempts ORDER BY proposal_id, attempt',
    );
    const { rows: proposals } = await client.query(
      `SELECT id, workflow_id AS "workflowId", thread_id AS "threadId", status, phase, resolution, attempt,
              error->>'code' AS "errorCode", version, owner_generation AS "ownerGeneration",
              transcript_tries AS "transcriptTries",
              cancel_requested_at IS NOT NULL AS "cancelRequested", generated_files AS files
       FROM proposals ORDER BY created_at`,
    );
    const { rows: drafts } = await client.query<DraftFacts & { workflowId: string }>(
      `SELECT w.id AS "workflowId", w.draft_revision AS revision,
              coalesce(jsonb_object_agg(f.path, f.content) FILTER (WHERE f.content IS NOT NULL), '{}') AS files
       FROM workflows w JOIN drafts d ON d.workflow_id = w.id LEFT JOIN draft_files f ON f.draft_id = d.id
       GROUP BY w.id`,
    );
    const { rows: outbox } = await client.query<{ left: number }>('SELECT count(*)::int AS left FROM outbox');
    return {
      proposals: proposals.map((row) => ({
        ...row,
        files: row.files === null ? null : textsOf(row.files),
        transitions: transitions.get(row.id) ?? [],
        attempts: attempts.get(row.id) ?? [],
      })),
      drafts: new Map(drafts.map((draft) => [draft.workflowId, draft])),
      runs,
      outbox: outbox[0]?.left ?? 0,
    };
  });
}

async function grouped<Row>(client: pg.Client, statement: string): Promise<Map<string, Row[]>> {
  const groups = new Map<string, Row[]>();
  const { rows } = await client.query<Row & { of: string }>(statement);
  for (const row of rows) groups.set(row.of, [...(groups.get(row.of) ?? []), row]);
  return groups;
}

async function readRuns(client: pg.Client): Promise<Map<string, RunFacts>> {
  const { rows } = await client.query<RunFacts>(
    `SELECT thread_id AS "jobId", status, (extract(epoch FROM created_at) * 1000)::float8 AS "createdAt",
            (extract(epoch FROM started_at) * 1000)::float8 AS "startedAt",
            (extract(epoch FROM least(finished_at, tombstone_at)) * 1000)::float8 AS "overAt"
     FROM runs`,
  );
  return new Map(rows.map((run) => [run.jobId, run]));
}
