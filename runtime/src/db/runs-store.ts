import type pg from 'pg';
import type { RunInput, WireFiles } from '../agent-runner.js';

export interface RunError {
  code: string;
  message: string;
  retryable: boolean;
}

/** What is needed to run a job, and which process's writes count. */
export interface StartableRun {
  threadId: string;
  input: RunInput;
  traceId: string;
  traceparent: string | null;
  epoch: number;
  generation: number;
  cancelled: boolean;
}

interface NewRun {
  threadId: string;
  input: RunInput;
  traceId: string;
  traceparent: string | null;
}

type RunStatus = 'queued' | 'running' | 'completed' | 'failed';

/** A row as callers see it. `files` and `error` are JSON texts, passed on without being parsed. */
export interface RunRow {
  threadId: string;
  status: RunStatus;
  epoch: number;
  files: string | null;
  error: string | null;
}

/** The `runs` table. Every call is one auto-committed statement; all reject when PostgreSQL is away. */
export interface RunStore {
  /** Writes a job that is not known yet, as running or as queued. */
  insert(
    run: NewRun,
    status: 'queued' | 'running',
    deadlineMs: number,
  ): Promise<'inserted' | 'known' | 'gone'>;
  /** Whether the job was taken before: `gone` where it was cleaned up since, null where nothing is known of it. */
  fateOf(threadId: string): Promise<'known' | 'gone' | null>;
  /** Marks a run running; the milliseconds that are left to it, or null where it must not start. */
  markRunning(run: StartableRun, deadlineMs: number): Promise<{ leftMs: number } | null>;
  /** The final status: false where the row is cleaned up or another process's. Repeating it is harmless. */
  finish(
    run: StartableRun,
    outcome: { status: 'completed' | 'failed'; files: WireFiles; error: RunError | null },
  ): Promise<boolean>;
  /** One epoch more for a run whose log begins anew in this process; null where it must not go on. */
  beginEpoch(run: StartableRun): Promise<{ epoch: number; cancelled: boolean } | null>;
  /** Takes all unfinished runs over, or one of them: one epoch and one generation more, oldest first. */
  takeUnfinished(threadId?: string): Promise<StartableRun[]>;
  /** The epoch under which a finished run is told whose log is gone: one more, once; null where there is none. */
  rebuiltEpoch(threadId: string): Promise<number | null>;
  /** Null where there is no row, or only a tombstone. */
  find(threadId: string): Promise<RunRow | null>;
  /** Asks for the end of a run; its status before, null where there is none. */
  requestCancel(threadId: string): Promise<RunStatus | null>;
  /** Bars a thread for ever, known or not. `had` says whether something may be left to delete. */
  tombstone(threadId: string): Promise<{ had: boolean }>;
  /** Empties the row of a tombstone whose checkpoints are deleted. */
  markPurged(threadId: string): Promise<void>;
  /** Tombstones whose checkpoints may still be there. */
  unpurged(): Promise<string[]>;
  countByStatus(): Promise<Record<string, number>>;
  /** Rejects where PostgreSQL does not answer. */
  ping(): Promise<void>;
}

interface StartableColumns {
  thread_id: string;
  input: RunInput;
  trace_id: string | null;
  traceparent: string | null;
  epoch: number;
  generation: number;
  cancelled: boolean;
}

/** The store on PostgreSQL. */
export function createRunStore({ pool }: { pool: pg.Pool }): RunStore {
  const fateOf = async (threadId: string): Promise<'known' | 'gone' | null> => {
    const { rows } = await pool.query<{ gone: boolean }>(
      'SELECT tombstone_at IS NOT NULL AS gone FROM runs WHERE thread_id = $1',
      [threadId],
    );
    if (rows[0] === undefined) return null;
    return rows[0].gone ? 'gone' : 'known';
  };

  return {
    fateOf,

    async insert(run, status, deadlineMs) {
      const { rowCount } = await pool.query({
        name: 'insert_run',
        text: `INSERT INTO runs (thread_id, status, input, trace_id, traceparent, started_at, deadline_at)
               SELECT $1, $2, $3, $4, $5, started, started + $6 * interval '1 ms'
                 FROM (SELECT CASE WHEN $2 = 'running' THEN now() END AS started) AS start
               ON CONFLICT (thread_id) DO NOTHING`,
        values: [run.threadId, status, JSON.stringify(run.input), run.traceId, run.traceparent, deadlineMs],
      });
      if (rowCount === 1) return 'inserted';
      // A statement of its own: the conflicting row may have been committed after the first one began.
      return (await fateOf(run.threadId)) ?? 'known';
    },

    async markRunning(run, deadlineMs) {
      const { rows } = await pool.query<{ left_ms: string }>({
        name: 'mark_running',
        text: `UPDATE runs SET status = 'running', started_at = coalesce(started_at, now()),
                      deadline_at = coalesce(deadline_at, now() + $3 * interval '1 ms')
                WHERE thread_id = $1 AND generation = $2 AND tombstone_at IS NULL
                  AND status IN ('queued', 'running')
               RETURNING extract(epoch FROM deadline_at - now()) * 1000 AS left_ms`,
        values: [run.threadId, run.generation, deadlineMs],
      });
      return rows[0] === undefined ? null : { leftMs: Math.max(0, Number(rows[0].left_ms)) };
    },

    async finish(run, { status, files, error }) {
      const { rowCount } = await pool.query({
        name: 'finish_run',
        text: `UPDATE runs SET status = $3, files = $4, error = $5, finished_at = coalesce(finished_at, now())
                WHERE thread_id = $1 AND generation = $2 AND tombstone_at IS NULL`,
        values: [
          run.threadId,
          run.generation,
          status,
          JSON.stringify(files),
          error === null ? null : JSON.stringify(error),
        ],
      });
      return rowCount === 1;
    },

    async beginEpoch(run) {
      const { rows } = await pool.query<{ epoch: number; cancelled: boolean }>(
        `UPDATE runs SET epoch = epoch + 1
          WHERE thread_id = $1 AND generation = $2 AND tombstone_at IS NULL AND status IN ('queued', 'running')
         RETURNING epoch, cancel_requested_at IS NOT NULL AS cancelled`,
        [run.threadId, run.generation],
      );
      return rows[0] ?? null;
    },

    async takeUnfinished(threadId) {
      const { rows } = await pool.query<StartableColumns>(
        `WITH taken AS (
           UPDATE runs SET epoch = epoch + 1, generation = generation + 1
            WHERE status IN ('queued', 'running') AND tombstone_at IS NULL
              AND ($1::text IS NULL OR thread_id = $1)
           RETURNING thread_id, input, trace_id, traceparent, epoch, generation,
                     cancel_requested_at IS NOT NULL AS cancelled, created_at)
         SELECT * FROM taken ORDER BY created_at`,
        [threadId ?? null],
      );
      return rows.map((row) => ({
        threadId: row.thread_id,
        input: row.input,
        traceId: row.trace_id ?? '',
        traceparent: row.traceparent,
        epoch: row.epoch,
        generation: row.generation,
        cancelled: row.cancelled,
      }));
    },

    async rebuiltEpoch(threadId) {
      const { rows } = await pool.query<{ epoch: number }>(
        `UPDATE runs SET epoch = epoch + CASE WHEN rebuilt THEN 0 ELSE 1 END, rebuilt = true
          WHERE thread_id = $1 AND tombstone_at IS NULL AND status IN ('completed', 'failed')
         RETURNING epoch`,
        [threadId],
      );
      return rows[0]?.epoch ?? null;
    },

    async find(threadId) {
      const { rows } = await pool.query<Omit<RunRow, 'threadId'>>({
        name: 'find_run',
        text: `SELECT status, epoch, files::text AS files, error::text AS error
                 FROM runs WHERE thread_id = $1 AND tombstone_at IS NULL`,
        values: [threadId],
      });
      return rows[0] === undefined ? null : { threadId, ...rows[0] };
    },

    async requestCancel(threadId) {
      const { rows } = await pool.query<{ status: RunStatus }>(
        `UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now())
          WHERE thread_id = $1 AND tombstone_at IS NULL RETURNING status`,
        [threadId],
      );
      return rows[0]?.status ?? null;
    },

    async tombstone(threadId) {
      const { rows } = await pool.query<{ had: boolean }>(
        `INSERT INTO runs (thread_id, status, tombstone_at, purged_at) VALUES ($1, 'deleted', now(), now())
         ON CONFLICT (thread_id) DO UPDATE SET tombstone_at = coalesce(runs.tombstone_at, now())
         RETURNING purged_at IS NULL AS had`,
        [threadId],
      );
      return { had: rows[0]?.had === true };
    },

    async markPurged(threadId) {
      await pool.query(
        `UPDATE runs SET status = 'deleted', input = NULL, files = NULL, error = NULL,
                purged_at = coalesce(purged_at, now())
          WHERE thread_id = $1 AND tombstone_at IS NOT NULL`,
        [threadId],
      );
    },

    async unpurged() {
      const { rows } = await pool.query<{ thread_id: string }>(
        'SELECT thread_id FROM runs WHERE tombstone_at IS NOT NULL AND purged_at IS NULL ORDER BY tombstone_at',
      );
      return rows.map((row) => row.thread_id);
    },

    async countByStatus() {
      const { rows } = await pool.query<{ status: string; count: string }>(
        'SELECT status, count(*) AS count FROM runs GROUP BY status',
      );
      const counts: Record<string, number> = { queued: 0, running: 0, completed: 0, failed: 0 };
      for (const { status, count } of rows) counts[status] = Number(count);
      return counts;
    },

    async ping() {
      await pool.query({ text: 'SELECT 1', query_timeout: 2_000 } as pg.QueryConfig);
    },
  };
}
