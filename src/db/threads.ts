import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { statusSchema, type ThreadRow, threadRow } from './row-schemas.js';
import { named, noRow } from './statement.js';

/** Columns of a {@link ThreadRow} from `proposals p` (or a RETURNING named p) joined with its attempt `a`. */
export const threadColumns = sql.fragment`
  p.id AS "proposalId", p.thread_id AS "threadId", p.workflow_id AS "workflowId", p.status, p.phase, p.resolution,
  p.attempt, a.job_id AS "jobId", a.runtime_thread_id AS "runtimeThreadId", a.runtime_epoch AS "runtimeEpoch",
  p.owner_node AS "ownerNode", p.owner_generation AS "ownerGeneration", p.taken_over AS "takenOver", p.version,
  p.access_version AS "accessVersion", p.cancel_requested_at AS "cancelRequestedAt",
  (extract(epoch FROM p.deadline_at - now()) * 1000)::float8 AS "deadlineInMs",
  p.created_at AS "createdAt", p.error, p.final_epoch AS "finalEpoch"`;

const joined = sql.fragment`
  proposals p JOIN attempts a ON a.proposal_id = p.id AND a.attempt = p.attempt`;

/** The thread, by its public id or by its proposal; nobody's access is checked. */
export const readThread = (
  db: CommonQueryMethods,
  by: { readonly threadId: string } | { readonly proposalId: string },
): Promise<ThreadRow | null> =>
  'threadId' in by
    ? db.maybeOne(named('read_thread', threadRow)`
        SELECT ${threadColumns} FROM ${joined} WHERE p.thread_id = ${by.threadId}`)
    : db.maybeOne(named('read_thread_of_proposal', threadRow)`
        SELECT ${threadColumns} FROM ${joined} WHERE p.id = ${by.proposalId}`);

/** Whether the thread's workflow was deleted: then nobody may look, and it is not a matter of access. */
export const isDeleted = async (
  db: CommonQueryMethods,
  input: { readonly threadId: string },
): Promise<boolean> =>
  db.exists(named('is_thread_deleted', z.object({}))`
    SELECT 1 FROM proposals p JOIN workflows w ON w.id = p.workflow_id
    WHERE p.thread_id = ${input.threadId} AND w.deleted_at IS NOT NULL`);

/** Threads of unfinished rows that name this node as their owner (`guarantees.md` 2). Names alone: mostly all have actors. */
export const unfinishedOwnedBy = async (
  db: CommonQueryMethods,
  input: { readonly node: string },
): Promise<string[]> => {
  const { threadIds } = await db.one(named(
    'unfinished_owned_by',
    z.object({ threadIds: z.array(z.string()) }),
  )`
    SELECT COALESCE(array_agg(thread_id::text), '{}') AS "threadIds" FROM proposals
    WHERE status = 'processing' AND owner_node = ${input.node}`);
  return threadIds;
};

/**
 * Unfinished rows that `node` may take over: without an owner, with one that has no `nodes` row, or with one in
 * `deadNodes`. With `all` (a single replica that starts) every unfinished row that is not its own. Each replica looks
 * at them in an order of its own, so that several do not reach for the same rows.
 *
 * @param input.owned false = only rows without an owner
 * @param input.except threads that are left alone
 */
export const listReviveable = async (
  db: CommonQueryMethods,
  input: {
    readonly node: string;
    readonly all: boolean;
    readonly owned?: boolean;
    readonly deadNodes?: readonly string[];
    readonly except?: readonly string[];
    readonly limit: number;
  },
): Promise<ThreadRow[]> => [
  ...(await db.any(named('list_reviveable', threadRow)`
    SELECT ${threadColumns} FROM ${joined}
    WHERE p.status = 'processing' AND p.owner_node IS DISTINCT FROM ${input.node}
      AND (${input.all} OR p.owner_node IS NULL
        OR ${input.owned ?? true} AND (
          p.owner_node = ANY(${sql.array([...(input.deadNodes ?? [])], 'text')})
          OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = p.owner_node)))
      AND NOT p.thread_id = ANY(${sql.array([...(input.except ?? [])], 'uuid')})
    ORDER BY md5(p.thread_id::text || ${input.node}) LIMIT ${input.limit}`)),
];

/**
 * Rows of other owners, dead or alive, whose time was over `graceMs` ago and for which nobody has done anything since
 * (`guarantees.md` 13): an owner that lives would have ended them.
 */
export const listOverdue = async (
  db: CommonQueryMethods,
  input: { readonly node: string; readonly graceMs: number; readonly limit: number },
): Promise<ThreadRow[]> => [
  ...(await db.any(named('list_overdue', threadRow)`
    SELECT ${threadColumns} FROM ${joined}
    WHERE p.status = 'processing' AND p.owner_node IS DISTINCT FROM ${input.node}
      AND p.deadline_at < now() - ${input.graceMs} * interval '1 millisecond'
      AND NOT EXISTS (
        SELECT 1 FROM proposal_transitions t
        WHERE t.proposal_id = p.id AND t.at > now() - ${input.graceMs} * interval '1 millisecond')
    ORDER BY md5(p.thread_id::text || ${input.node}) LIMIT ${input.limit}`)),
];

/** All unfinished rows, and those that name this node: what a replica's share is made of. */
export const countUnfinished = (
  db: CommonQueryMethods,
  input: { readonly node: string },
): Promise<{ all: number; own: number }> =>
  db.one(named('count_unfinished', z.object({ all: z.number(), own: z.number() }))`
    SELECT count(*) AS all, count(*) FILTER (WHERE owner_node = ${input.node}) AS own
    FROM proposals WHERE status = 'processing'`);

/**
 * Makes `toNode` the owner under the next generation, in one statement, if the owner is still the one that was seen.
 *
 * @param input.fromBeat the beat at which the owner stood still, null where it had no `nodes` row: an owner with any
 *   other beat keeps its thread. `any`: it lives, and is taken over all the same, which does not count as a death
 * @returns the row after the take-over; null where nothing was touched
 */
export const takeOver = (
  db: CommonQueryMethods,
  input: {
    readonly threadId: string;
    readonly fromNode: string | null;
    readonly fromGeneration: number;
    readonly fromBeat?: number | null | 'any';
    readonly toNode: string;
    readonly transitionId: string;
  },
): Promise<ThreadRow | null> => {
  const { fromNode, fromBeat = null } = input;
  const died = fromNode !== null && fromBeat !== 'any';
  return db.maybeOne(named('take_over', threadRow)`
    WITH p AS (
      UPDATE proposals SET
        owner_node = ${input.toNode}, owner_generation = owner_generation + 1, version = version + 1,
        taken_over = taken_over + ${died ? 1 : 0}
      WHERE thread_id = ${input.threadId} AND status = 'processing'
        AND owner_generation = ${input.fromGeneration}
        AND owner_node IS NOT DISTINCT FROM ${fromNode}::text
        AND NOT (${died} AND EXISTS (
          SELECT 1 FROM nodes n
          WHERE n.id = ${fromNode}::text AND n.beat IS DISTINCT FROM ${died ? fromBeat : null}::bigint))
      RETURNING *
    ), noted AS (
      INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt, details)
      SELECT ${input.transitionId}::uuid, id, version, phase, phase, 'taken_over', attempt,
             jsonb_build_object('from_node', ${fromNode}::text, 'to_node', ${input.toNode}::text)
      FROM p
    )
    SELECT ${threadColumns}, pg_notify('threads', p.thread_id::text)
    FROM p JOIN attempts a ON a.proposal_id = p.id AND a.attempt = p.attempt`);
};

/**
 * Gives up what names `node`, a batch in one statement: for a replica that stops and commits nothing else any more. Its
 * own name is the fence, since nobody else ever writes it; a batch whose answer was lost is found given up by the next.
 * Rows that somebody holds locked are passed over.
 *
 * @param input.except threads that are kept
 * @returns how many were given up; fewer than `limit` = there are no more
 */
export const giveUpOwned = async (
  db: CommonQueryMethods,
  input: { readonly node: string; readonly except: readonly string[]; readonly limit: number },
): Promise<number> => {
  const given = await db.any(named('give_up_owned', noRow)`
    WITH owned AS MATERIALIZED (
      SELECT id FROM proposals
      WHERE status = 'processing' AND owner_node = ${input.node}
        AND NOT thread_id = ANY(${sql.array([...input.except], 'uuid')})
      LIMIT ${input.limit} FOR NO KEY UPDATE SKIP LOCKED
    ), moved AS (
      UPDATE proposals p SET owner_node = NULL, version = version + 1 FROM owned
      WHERE p.id = owned.id AND p.owner_node = ${input.node}
      RETURNING p.id, p.thread_id, p.version, p.phase, p.attempt
    ), noted AS (
      INSERT INTO proposal_transitions (id, proposal_id, row_version, from_state, to_state, event, attempt, details)
      SELECT gen_random_uuid(), id, version, phase, phase, 'given_up', attempt,
             jsonb_build_object('node', ${input.node}::text)
      FROM moved
    )
    SELECT pg_notify('threads', thread_id::text) FROM moved`);
  return given.length;
};

/** The owner sets the count of take-overs to 0 once it has read a frame or held the thread for 10 s (`guarantees.md` 13). */
export const clearTakenOver = async (
  db: CommonQueryMethods,
  fence: { readonly proposalId: string; readonly generation: number; readonly version: number },
): Promise<{ version: number } | null> =>
  db.maybeOne(named('clear_taken_over', z.object({ version: z.number() }))`
    WITH moved AS (
      UPDATE proposals SET taken_over = 0, version = version + 1
      WHERE id = ${fence.proposalId} AND owner_generation = ${fence.generation} AND version = ${fence.version}
        AND status = 'processing'
      RETURNING thread_id, version
    )
    SELECT version, pg_notify('threads', thread_id::text) FROM moved`);

const reread = z.object({
  threadId: z.string(),
  attempt: z.number(),
  status: statusSchema,
  version: z.number(),
  accessVersion: z.number(),
  cancelRequested: z.boolean(),
  ownerNode: z.string().nullable(),
  ownerGeneration: z.number(),
});
export type RereadRow = z.infer<typeof reread>;

/** What may have moved in threads with a local viewer or actor, in one query (`guarantees.md` 11). */
export const rereadThreads = async (
  db: CommonQueryMethods,
  threadIds: readonly string[],
): Promise<RereadRow[]> =>
  threadIds.length === 0
    ? []
    : [
        ...(await db.any(named('reread_threads', reread)`
          SELECT thread_id AS "threadId", attempt, status, version, access_version AS "accessVersion",
                 cancel_requested_at IS NOT NULL AS "cancelRequested", owner_node AS "ownerNode",
                 owner_generation AS "ownerGeneration"
          FROM proposals WHERE thread_id = ANY(${sql.array([...threadIds], 'uuid')})`)),
      ];

const attemptRow = z.object({
  attempt: z.number(),
  jobId: z.string(),
  runtimeThreadId: z.string().nullable(),
  runtimeEpoch: z.string().nullable(),
  outcome: z.string().nullable(),
  startedAt: z.string(),
  endedAt: z.string().nullable(),
  cleanedAt: z.string().nullable(),
});
export type AttemptRow = z.infer<typeof attemptRow>;

/** All attempts in order. A next one may be invoked once the one before has `cleanedAt` (`guarantees.md` 7). */
export const readAttempts = async (
  db: CommonQueryMethods,
  input: { readonly proposalId: string },
): Promise<AttemptRow[]> => [
  ...(await db.any(named('read_attempts', attemptRow)`
    SELECT attempt, job_id AS "jobId", runtime_thread_id AS "runtimeThreadId", runtime_epoch AS "runtimeEpoch",
           outcome, started_at AS "startedAt", ended_at AS "endedAt", cleaned_at AS "cleanedAt"
    FROM attempts WHERE proposal_id = ${input.proposalId} ORDER BY attempt`)),
];
