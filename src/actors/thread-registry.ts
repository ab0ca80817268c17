import { AsyncResource } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { context } from '@opentelemetry/api';
import { forgetNodes, listNodes } from '../db/nodes.js';
import { findThreadFor } from '../db/proposals.js';
import type { ThreadRow } from '../db/row-schemas.js';
import {
  isDeleted,
  listReviveable,
  readThread,
  rereadThreads,
  takeOver,
  unfinishedOwnedBy,
} from '../db/threads.js';
import { AppError } from '../errors.js';
import type { Viewer } from '../streams/viewer.js';
import { traceIdOf, traceparentOf } from '../telemetry/tracing.js';
import { createAccessWatch } from './access-watch.js';
import { createDeathWatch } from './death-watch.js';
import { createProposalLives } from './proposal-actors.js';
import type { RunInput } from './run-input.js';
import { createThreadActor, type ThreadActor, type ThreadActorDeps } from './thread-actor.js';
import type { ThreadDirectory } from './thread-directory.js';
import { createWaitingCommits } from './waiting-commits.js';

export interface ThreadRegistryDeps extends Omit<ThreadActorDeps, 'onBroken' | 'lives' | 'waitingCommits'> {
  /** No other replica can be alive: what a replica before us left behind is taken over at once. */
  sole: boolean;
}

/** All live threads of this replica. */
export interface ThreadRegistry extends ThreadDirectory {
  /** Takes over what was left behind, then watches rows, replicas and clocks until it is stopped. */
  start(): Promise<void>;
  /** Hands everything over; viewers are closed with 1012. */
  stop(): Promise<void>;
  /** The listener was connected anew: notices were missed. */
  reread(): void;
  size(): number;
}

const TICK_MS = 1_000;
const NODES_MS = 500;
const OWN_ROWS_MS = 2_000;
/** A tick that comes this much late says that the process stood still. */
const LATE_MS = 1_000;
const TAKE_OVER_BATCH = 200;
/** Of a thread whose access never changed. */
const FIRST_ACCESS_VERSION = 1;
/** Threads taken over side by side: each opens a socket to the runtime. */
const TAKE_OVER_AT_ONCE = 50;

export function createThreadRegistry(deps: ThreadRegistryDeps): ThreadRegistry {
  const { db, log, node } = deps;
  const threads = new Map<string, Promise<ThreadActor>>();
  const live = new Map<string, ThreadActor>();
  const timers: NodeJS.Timeout[] = [];
  const underWay = new Set<Promise<void>>();
  const watch = createDeathWatch(node);
  const lives = createProposalLives();
  const waitingCommits = createWaitingCommits(deps.config.database.waitingCommitBytes);
  const outside = new AsyncResource('ThreadRegistry');
  let stopping = false;
  let lastTick = deps.now();
  /** Access versions that viewers were judged by since they were let in. */
  const judgedBy = new WeakMap<Viewer, number>();
  const accessWatch = createAccessWatch({
    unknownMs: deps.config.viewers.accessUnknownMs,
    now: deps.now,
  });

  function forget(threadId: string, actor: ThreadActor | undefined): void {
    if (actor !== undefined && live.get(threadId) !== actor) return;
    live.delete(threadId);
    threads.delete(threadId);
  }

  function make(row: ThreadRow, awaited: boolean, input: RunInput | null = null): ThreadActor {
    const role = row.status === 'processing' && row.ownerNode !== node ? 'reader' : 'owner';
    const active = context.active();
    const actor = createThreadActor(
      {
        ...deps,
        lives,
        waitingCommits,
        onBroken(threadId) {
          // Its row still names this replica: it is revived by the next look at our own rows.
          const broken = live.get(threadId);
          forget(threadId, broken);
          broken?.stop();
        },
      },
      row,
      {
        role,
        awaited,
        input,
        traceId: traceIdOf(active) ?? row.proposalId.replaceAll('-', ''),
        traceparent: traceparentOf(active),
      },
    );
    live.set(row.threadId, actor);
    return actor;
  }

  /** The thread's actor, made from its row if there is none: two callers share one load. */
  function open(threadId: string, row?: ThreadRow): Promise<ThreadActor> {
    const known = threads.get(threadId);
    if (known !== undefined) return known;
    const opened = (async () => {
      const found = row ?? (await readThread(db, { threadId }));
      if (found === null) throw new AppError('not_found', 'There is no such thread.');
      if (stopping) throw new AppError('shutting_down', 'This replica is stopping.');
      return make(found, false);
    })();
    threads.set(threadId, opened);
    opened.catch(() => threads.delete(threadId));
    return opened;
  }

  async function look(threadIds: string[]): Promise<void> {
    const rows = await rereadThreads(db, threadIds);
    await Promise.all(
      rows.map(async (seen) => {
        const actor = live.get(seen.threadId);
        if (actor === undefined) return;
        await recheckViewers(actor, seen.accessVersion);
        if (seen.version === actor.version()) return;
        // Deleting a workflow cancels and supersedes; its viewers hear of that before they hear of an end.
        const deleted = seen.cancelRequested || seen.status === 'resolved';
        if (deleted) for (const viewer of actor.viewers()) await recheck(actor.threadId, viewer);
        const row = await readThread(db, { threadId: seen.threadId });
        if (row !== null) actor.observe(row);
      }),
    );
  }

  /**
   * Access was withdrawn, or the workflow deleted: who may not look any more goes. Each viewer remembers by itself what it
   * was judged by, so that one which joined while others were being judged is not passed over.
   */
  async function recheckViewers(actor: ThreadActor, accessVersion: number): Promise<void> {
    if (accessVersion === FIRST_ACCESS_VERSION) return;
    for (const viewer of actor.viewers()) {
      if ((judgedBy.get(viewer) ?? viewer.accessVersion) >= accessVersion) continue;
      await recheck(actor.threadId, viewer);
      judgedBy.set(viewer, accessVersion);
    }
  }

  async function recheck(threadId: string, viewer: Viewer): Promise<void> {
    if ((await findThreadFor(db, { threadId, userId: viewer.userId })) !== null) return;
    if (await isDeleted(db, { threadId })) viewer.close(4404, 'deleted');
    else viewer.close(4403, 'access_withdrawn');
  }

  async function guarded(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      log.warn({ err: error }, what);
    }
  }

  function every(milliseconds: number, work: () => Promise<void>, what: string): void {
    let busy = false;
    timers.push(
      setInterval(() => {
        if (busy || stopping) return;
        busy = true;
        const working = guarded(what, work).finally(() => {
          busy = false;
          underWay.delete(working);
        });
        underWay.add(working);
      }, milliseconds),
    );
  }

  async function tick(): Promise<void> {
    const now = deps.now();
    const late = now - lastTick > TICK_MS + LATE_MS;
    lastTick = now;
    for (const [threadId, actor] of live) {
      actor.tick(late);
      const idle = actor.idleSince();
      if (idle !== null && now - idle > deps.config.runs.idleActorMs) {
        forget(threadId, actor);
        actor.stop();
      }
    }
    await look([...live.keys()]);
    accessWatch.read();
  }

  /** Beside the reading, which may hang as long as a frozen PostgreSQL makes it wait. */
  function closeUnknownViewers(): void {
    if (!accessWatch.isUnknown()) return;
    for (const actor of live.values()) {
      for (const viewer of actor.viewers()) viewer.close(1013, 'access cannot be checked, come back');
    }
  }

  async function reviveOwn(): Promise<void> {
    const rows = await unfinishedOwnedBy(db, { node });
    for (const row of rows) if (!threads.has(row.threadId)) await open(row.threadId, row);
    for (const row of rows) {
      const actor = live.get(row.threadId);
      if (actor !== undefined && actor.role() === 'reader') actor.observe(row);
    }
  }

  async function takeOverFrom(rows: ThreadRow[], beats: ReadonlyMap<string, number>): Promise<void> {
    for (let at = 0; at < rows.length && !stopping; at += TAKE_OVER_AT_ONCE) {
      await Promise.all(
        rows.slice(at, at + TAKE_OVER_AT_ONCE).map(async (row) => {
          if (stopping) return;
          const taken = await takeOver(db, {
            threadId: row.threadId,
            fromNode: row.ownerNode,
            fromGeneration: row.ownerGeneration,
            fromBeat: row.ownerNode === null ? null : (beats.get(row.ownerNode) ?? null),
            toNode: node,
            transitionId: randomUUID(),
          });
          if (taken === null) return;
          if (row.ownerNode !== null) deps.metrics.threadsTakenOverTotal.inc();
          log.info({ thread_id: row.threadId, from_node: row.ownerNode }, 'thread taken over');
          const actor = await open(row.threadId, taken);
          if (actor.role() === 'reader') actor.observe(taken);
        }),
      );
    }
  }

  async function watchNodes(): Promise<void> {
    const nodes = await listNodes(db).catch((error: unknown) => {
      watch.failed();
      throw error;
    });
    const dead = watch.seen(nodes, deps.now());
    const deadNodes = dead.map(({ id }) => id);
    const rows = await listReviveable(db, { node, all: false, deadNodes, limit: TAKE_OVER_BATCH });
    await takeOverFrom(rows, new Map(dead.map(({ id, beat }) => [id, beat])));
    if (dead.length > 0) await forgetNodes(db, { ids: deadNodes });
  }

  /** Embedded: whoever held these rows is gone for certain. */
  async function takeOverAll(): Promise<void> {
    const nodes = await listNodes(db);
    const beats = new Map(nodes.map(({ id, beat }) => [id, beat]));
    await takeOverFrom(await listReviveable(db, { node, all: true, limit: 10_000 }), beats);
    await forgetNodes(db, { ids: nodes.map(({ id }) => id).filter((id) => id !== node) });
  }

  return {
    runtimeRetryAfterSeconds: () => deps.client.circuit.retryAfterSeconds(),
    async startRun(row, input) {
      // The row names us: another replica takes it over when our beat stands still.
      if (stopping) return 'unknown';
      // The look at our own rows may have found the new row first.
      const found = threads.get(row.threadId);
      const actor = found === undefined ? make(row, true, input) : await found;
      if (found === undefined) threads.set(row.threadId, Promise.resolve(actor));
      return actor.started(deps.config.runs.startWaitMs);
    },
    async attach(threadId, viewer, position) {
      const actor = await open(threadId);
      const attachment = await actor.attach(viewer, position);
      // Access may have been withdrawn between the upgrade and now.
      if (viewer.accessVersion < actor.accessVersion()) await recheck(threadId, viewer);
      return attachment;
    },
    notice(threadId) {
      if (!live.has(threadId)) return;
      // A caller may stand inside a transaction, whose connection is no place for our reading.
      outside.runInAsyncScope(() => void guarded('a thread could not be read again', () => look([threadId])));
    },
    reread() {
      void guarded('threads could not be read again', () => look([...live.keys()]));
    },
    counts() {
      const counts: Record<string, number> = {};
      for (const actor of live.values()) counts[actor.state()] = (counts[actor.state()] ?? 0) + 1;
      return counts;
    },
    size: () => live.size,
    async start() {
      if (deps.sole) await guarded('what was left behind could not be taken over', takeOverAll);
      lastTick = deps.now();
      accessWatch.read();
      timers.push(setInterval(closeUnknownViewers, TICK_MS));
      every(TICK_MS, tick, 'threads could not be read again');
      every(OWN_ROWS_MS, reviveOwn, 'own rows could not be read');
      every(NODES_MS, watchNodes, 'replicas could not be watched');
    },
    async stop() {
      stopping = true;
      for (const timer of timers) clearInterval(timer);
      // What is being taken over at this moment has an actor then, and is handed over like the rest.
      await Promise.allSettled(underWay);
      const actors = [...live.values()];
      await Promise.allSettled(actors.map((actor) => actor.handOver()));
      live.clear();
      threads.clear();
    },
  };
}
