import { AsyncResource } from 'node:async_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { context } from '@opentelemetry/api';
import { findThreadFor } from '../db/proposals.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { giveUpOwned, isDeleted, readThread, rereadThreads, unfinishedOwnedBy } from '../db/threads.js';
import { AppError } from '../errors.js';
import type { Viewer } from '../streams/viewer.js';
import { traceIdOf, traceparentOf } from '../telemetry/tracing.js';
import { createAccessWatch } from './access-watch.js';
import { createProposalLives } from './proposal-actors.js';
import type { RunInput } from './run-input.js';
import { createTakeOvers } from './take-overs.js';
import { createThreadActor, type ThreadActor, type ThreadActorDeps } from './thread-actor.js';
import type { ThreadDirectory } from './thread-directory.js';
import { createWaitingCommits } from './waiting-commits.js';

export interface ThreadRegistryDeps
  extends Omit<ThreadActorDeps, 'onBroken' | 'lives' | 'waitingCommits' | 'anotherReaches' | 'givingUp'> {
  /** No other replica can be alive: what a replica before us left behind is taken over at once. */
  sole: boolean;
}

/** All live threads of this replica. */
export interface ThreadRegistry extends ThreadDirectory {
  /** Takes over what was left behind, then watches rows, replicas and clocks until it is stopped. */
  start(): Promise<void>;
  /** Hands everything over; viewers are closed with 1012. */
  stop(): Promise<void>;
  /** Gives up what requests that were still being answered have begun since then. */
  giveUpRest(): Promise<void>;
  /** The listener was connected anew: notices were missed. */
  reread(): void;
  size(): number;
}

const TICK_MS = 1_000;
const NODES_MS = 500;
const OWN_ROWS_MS = 2_000;
const SWEEP_MS = 5_000;
/** A tick that comes this much late says that the process stood still. */
const LATE_MS = 1_000;
/** Of a thread whose access never changed. */
const FIRST_ACCESS_VERSION = 1;
/** A thread that was taken over keeps the next one waiting until its run is being read, this long at most. */
const OPENING_MS = 250;
/** For all of the handing over, so that a database that is away cannot keep the process from ending in time. */
const HAND_OVER_MS = 8_000;
/** Of that, what has begun already gets so much, and an end that is being committed. */
const BEGUN_WAIT_MS = 2_000;
const ENDING_WAIT_MS = 5_000;
const REST_WAIT_MS = 2_000;
const GIVE_UP_BATCH = 200;

export function createThreadRegistry(deps: ThreadRegistryDeps): ThreadRegistry {
  const { db, log, node } = deps;
  const threads = new Map<string, Promise<ThreadActor>>();
  const live = new Map<string, ThreadActor>();
  const timers: NodeJS.Timeout[] = [];
  const underWay = new Set<Promise<void>>();
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
  const takeOvers = createTakeOvers({
    db,
    node,
    now: deps.now,
    metrics: deps.metrics,
    log,
    isStopping: () => stopping,
    async gained(row) {
      const actor = await open(row.threadId, row);
      if (actor.role() === 'reader') actor.observe(row);
      await actor.opened(OPENING_MS);
    },
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
        anotherReaches: takeOvers.anotherReaches,
        givingUp: takeOvers.givingUp,
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

  /** Waits for nothing: a database that is slow must not look like a process that stood still. */
  function tick(): void {
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
  }

  async function readAll(): Promise<void> {
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
    for (const threadId of await unfinishedOwnedBy(db, { node })) {
      const actor = live.get(threadId);
      const missing = actor === undefined && !threads.has(threadId) && !takeOvers.waits(threadId);
      if (!missing && actor?.role() !== 'reader') continue;
      const row = await readThread(db, { threadId });
      // It may have gone on meanwhile.
      if (row === null || row.ownerNode !== node) continue;
      if (actor === undefined) await open(threadId, row);
      else actor.observe(row);
    }
  }

  /** Everything that names us, in as few statements as it takes; what cannot be given up is taken over as from the dead. */
  async function giveUpAll(except: readonly string[], waitMs: number): Promise<void> {
    const giving = guarded('threads could not be given up', async () => {
      while ((await giveUpOwned(db, { node, except, limit: GIVE_UP_BATCH })) === GIVE_UP_BATCH);
    });
    await Promise.race([giving, wait(Math.max(0, waitMs), undefined, { ref: false })]);
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
      if (viewer.accessVersion < actor.accessVersion()) {
        try {
          await recheck(threadId, viewer);
        } catch (error) {
          // Whoever called has nothing to detach yet.
          attachment.detach();
          throw error;
        }
      }
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
      if (deps.sole) await guarded('what was left behind could not be taken over', takeOvers.takeAll);
      lastTick = deps.now();
      accessWatch.read();
      timers.push(setInterval(tick, TICK_MS), setInterval(closeUnknownViewers, TICK_MS));
      every(TICK_MS, readAll, 'threads could not be read again');
      every(OWN_ROWS_MS, reviveOwn, 'own rows could not be read');
      every(NODES_MS, takeOvers.poll, 'replicas could not be watched');
      every(SWEEP_MS, takeOvers.sweep, 'overdue runs could not be swept');
    },
    async stop() {
      stopping = true;
      for (const timer of timers) clearInterval(timer);
      const until = deps.now() + HAND_OVER_MS;
      // What is being taken over at this moment has an actor then, and is handed over like the rest.
      const begun = Promise.allSettled([...underWay, takeOvers.settled()]);
      await Promise.race([begun, wait(BEGUN_WAIT_MS, undefined, { ref: false })]);
      const actors = [...live.values()];
      const ending = actors.filter((actor) => actor.state() === 'finalizing');
      const others = actors.filter((actor) => !ending.includes(actor));
      for (const actor of others) actor.halt();
      await giveUpAll(
        ending.map((actor) => actor.threadId),
        until - deps.now(),
      );
      // They come back with their position, to replicas that take over what they watch.
      for (const actor of others) actor.stop();
      const endingMs = Math.min(ENDING_WAIT_MS, until - deps.now());
      await Promise.all(ending.map((actor) => actor.ended(endingMs)));
      for (const actor of ending) actor.stop();
      if (ending.length > 0) await giveUpAll([], until - deps.now());
      live.clear();
      threads.clear();
    },
    giveUpRest: () => giveUpAll([], REST_WAIT_MS),
  };
}
