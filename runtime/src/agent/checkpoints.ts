import './library-settings.js';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { RunnableConfig } from '@langchain/core/runnables';
import {
  type ChannelVersions,
  type Checkpoint,
  type CheckpointMetadata,
  type CheckpointTuple,
  type PendingWrite,
  WRITES_IDX_MAP,
} from '@langchain/langgraph-checkpoint';
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres';
import type pg from 'pg';

/** The store of checkpoints failed. `away`: nothing is wrong with what was to be written, PostgreSQL is not there. */
export class StoreError extends Error {
  readonly away: boolean;

  constructor(cause: unknown) {
    super('The checkpoint store failed.', { cause });
    this.name = 'StoreError';
    this.away = !refusesTheContent(cause);
  }
}

/** SQLSTATE classes of a statement that would fail again: bad data, violated constraint, too large. */
function refusesTheContent(cause: unknown): boolean {
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : undefined;
  return typeof code === 'string' && /^(22|23|54)[0-9A-Z]{3}$/.test(code);
}

/** Enough to outlive any write that trails behind an abort, without growing for ever. */
const rememberedPurges = 10_000;

/** Values of a statement that is prepared: a step of an agent writes a dozen rows at most. */
const commonValues = 128;

/**
 * PostgreSQL checkpoints that can be deleted for certain: writes trail behind an abort, so each is
 * tracked, and a purged thread takes none any more.
 */
export class CheckpointStore extends PostgresSaver {
  readonly #gone = new Set<string>();
  readonly #busy = new Map<string, Set<Promise<unknown>>>();
  /** Of threads that began here: the name spaces that have been written. */
  readonly #fresh = new Map<string, Set<string>>();
  readonly #pool: pg.Pool;
  readonly #tables: string;

  constructor(pool: pg.Pool, schema: string) {
    super(pool, undefined, { schema });
    this.#pool = pool;
    this.#tables = quoted(schema);
    surviveLostConnections(pool);
  }

  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const { thread_id, checkpoint_ns = '', checkpoint_id } = config.configurable ?? {};
    const written = await this.#track(config, async () => {
      const [blobs, meta] = await Promise.all([
        this._dumpBlobs(thread_id, checkpoint_ns, checkpoint.channel_values, newVersions),
        this._dumpMetadata(metadata),
      ]);
      const own = [
        thread_id,
        checkpoint_ns,
        checkpoint.id,
        checkpoint_id,
        this._dumpCheckpoint(checkpoint),
        meta,
      ];
      const rows = rowsFrom(own.length, blobs);
      // The library sends one statement for each row, inside a transaction: many round trips for each step.
      const insertBlobs =
        blobs.length === 0
          ? ''
          : `WITH blobs AS (
               INSERT INTO ${this.#tables}.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
               VALUES ${rows} ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING)`;
      await this.#write(
        `put ${blobs.length}`,
        `${insertBlobs}
         INSERT INTO ${this.#tables}.checkpoints
           (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
         DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata`,
        [...own, ...blobs.flat()],
      );
      return { configurable: { thread_id, checkpoint_ns, checkpoint_id: checkpoint.id } };
    });
    return written ?? config;
  }

  override async putWrites(config: RunnableConfig, writes: PendingWrite[], taskId: string): Promise<void> {
    const { thread_id, checkpoint_ns = '', checkpoint_id } = config.configurable ?? {};
    await this.#track(config, async () => {
      const rows = await this._dumpWrites(thread_id, checkpoint_ns, checkpoint_id, taskId, writes);
      if (rows.length === 0) return;
      const replace = writes.every(([channel]) => channel in WRITES_IDX_MAP);
      await this.#write(
        `${replace ? 'replace' : 'add'} ${rows.length}`,
        `INSERT INTO ${this.#tables}.checkpoint_writes
           (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)
         VALUES ${rowsFrom(0, rows)}
         ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO ${
           replace
             ? 'UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob'
             : 'NOTHING'
         }`,
        rows.flat(),
      );
    });
  }

  /**
   * Says that nothing is stored of the thread, and that nobody but this store writes to it until
   * {@link endFresh}. The library asks for a checkpoint before every agent's first step, twice: for
   * what cannot be there the database is not asked.
   */
  beginFresh(threadId: string): void {
    this.#fresh.set(threadId, new Set());
  }

  endFresh(threadId: string): void {
    this.#fresh.delete(threadId);
  }

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const { thread_id, checkpoint_ns = '', checkpoint_id } = config.configurable ?? {};
    const written = this.#fresh.get(String(thread_id));
    if (written !== undefined && checkpoint_id === undefined && !written.has(checkpoint_ns)) {
      // The pause that a query would have been: sockets are served between an agent's first steps.
      await nextTurn();
      return undefined;
    }
    try {
      return await super.getTuple(config);
    } catch (cause) {
      throw new StoreError(cause);
    }
  }

  /** Resolves when no write of the thread is under way. */
  async settled(threadId: string): Promise<void> {
    while (this.#busy.has(threadId)) await Promise.allSettled(this.#busy.get(threadId) ?? []);
  }

  /** Deletes all of the thread's rows, waits for writes under way and refuses later ones; true where rows were there. */
  async purge(threadId: string): Promise<boolean> {
    this.#gone.add(threadId);
    for (const oldest of this.#gone) {
      if (this.#gone.size <= rememberedPurges) break;
      this.#gone.delete(oldest);
    }
    await this.settled(threadId);
    const result = await this.#pool.query<{ there: boolean }>(
      `SELECT EXISTS (SELECT FROM ${this.#tables}.checkpoints WHERE thread_id = $1)
           OR EXISTS (SELECT FROM ${this.#tables}.checkpoint_blobs WHERE thread_id = $1)
           OR EXISTS (SELECT FROM ${this.#tables}.checkpoint_writes WHERE thread_id = $1) AS there`,
      [threadId],
    );
    await super.deleteThread(threadId);
    return result.rows[0]?.there ?? false;
  }

  /** Named, so that PostgreSQL plans each shape once for a connection; those of rare lengths are not kept. */
  async #write(shape: string, text: string, values: unknown[]): Promise<void> {
    const isCommon = values.length <= commonValues;
    await this.#pool.query({ text, values, ...(isCommon ? { name: `${this.#tables} ${shape}` } : {}) });
  }

  async #track<T>(config: RunnableConfig, write: () => Promise<T>): Promise<T | undefined> {
    const threadId = String(config.configurable?.thread_id);
    if (this.#gone.has(threadId)) return undefined;
    this.#fresh.get(threadId)?.add(config.configurable?.checkpoint_ns ?? '');
    const writing = write();
    const busy = this.#busy.get(threadId) ?? new Set();
    this.#busy.set(threadId, busy.add(writing));
    try {
      return await writing;
    } catch (cause) {
      throw new StoreError(cause);
    } finally {
      busy.delete(writing);
      if (busy.size === 0) this.#busy.delete(threadId);
    }
  }
}

/** Any number that all processes of the runtime agree on. */
const setupLock = 7_061_803_212;

/**
 * Makes the schema and the tables of the checkpoints, or brings them up to date. Safe to call from
 * several processes at once: the library's own setup fails with duplicate keys when it races.
 */
export async function setupCheckpoints(pool: pg.Pool, schema: string): Promise<void> {
  surviveLostConnections(pool);
  const client = await pool.connect();
  try {
    await client.query('SELECT pg_advisory_lock($1)', [setupLock]);
    try {
      await new PostgresSaver(pool, undefined, { schema }).setup();
    } finally {
      await client.query('SELECT pg_advisory_unlock($1)', [setupLock]);
    }
  } finally {
    client.release();
  }
}

/** `($7,$8), ($9,$10)` for rows whose values follow `taken` others. */
function rowsFrom(taken: number, rows: readonly (readonly unknown[])[]): string {
  let at = taken;
  return rows
    .map((row) => {
      const places = row.map(() => {
        at += 1;
        return `$${at}`;
      });
      return `(${places.join(',')})`;
    })
    .join(', ');
}

const guardedPools = new WeakSet<pg.Pool>();
const guardedClients = new WeakSet<pg.PoolClient>();

/**
 * A connection that is lost while the library holds it emits `error` besides failing its query. Nobody
 * listens there, and the process would end; the failed query is told anyway.
 */
function surviveLostConnections(pool: pg.Pool): void {
  if (guardedPools.has(pool)) return;
  guardedPools.add(pool);
  pool.on('acquire', (client) => {
    if (guardedClients.has(client)) return;
    guardedClients.add(client);
    client.on('error', () => {});
  });
}

function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
