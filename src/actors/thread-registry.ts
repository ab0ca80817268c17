import { AsyncResource } from 'node:async_hooks';
import { context } from '@opentelemetry/api';
import type { ThreadRow } from '../db/row-schemas.js';
import { readThread, rereadThreads, unfinishedOwnedBy } from '../db/threads.js';
import { AppError } from '../errors.js';
import { traceIdOf, traceparentOf } from '../telemetry/tracing.js';
import { createAccessWatch } from './access-watch.js';
import { createHandOver } from './hand-over.js';
import { createPauses } from './pauses.js';
import { createProposalLives } from './proposal-actors.js';
import { createRounds, guarded } from './rounds.js';
import type { RunInput } from './run-input.js';
import { createTakeOvers } from './take-overs.js';
import { createThreadActor, type ThreadActor } from './thread-actor.js';
import type { ThreadDirectory } from './thread-directory.js';
import type { ThreadActorDeps } from './thread-parts.js';
import { createViewerAccess } from './viewer-access.js';
import { createWaitingCommits } from './waiting-commits.js';

export interface ThreadRegistryDeps
  extends Omit<
    ThreadActorDeps,
    'onBroken' | 'lives' | 'waitingCommits' | 'anotherReaches' | 'givingUp' | 'pauses'
  > {
  random: () => number;
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
/** A thread that was taken over keeps the next one waiting until its run is being read, this long at most. */
const OPENING_MS = 250;

export function createThreadRegistry(deps: ThreadRegistryDeps): ThreadRegistry {
  const { db, log, node } = deps;
  const threads = new Map<string, Promise<ThreadActor>>();
  const live = new Map<string, ThreadActor>();
  const rounds = createRounds({ log });
  const handOver = createHandOver({ db, node, now: deps.now, log });
  const lives = createProposalLives();
  const waitingCommits = createWaitingCommits(deps.config.database.waitingCommitBytes);
  const outside = new AsyncResource('ThreadRegistry');
  let stopping = false;
  let lastTick = deps.now();
  const access = createViewerAccess({ db });
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

  const actorDeps: ThreadActorDeps = {
    ...deps,
    lives,
    waitingCommits,
    pauses: createPauses({ runs: deps.config.runs, random: deps.random }),
    anotherReaches: takeOvers.anotherReaches,
    givingUp: takeOvers.givingUp,
    onBroken(threadId) {
      // Its row still names this replica: it is revived by the next look at our own rows.
      const broken = live.get(threadId);
      forget(threadId, broken);
      broken?.stop();
    },
  };

  function make(row: ThreadRow, awaited: boolean, input: RunInput | null = null): ThreadActor {
    const role = row.status === 'processing' && row.ownerNode !== node ? 'reader' : 'owner';
    const active = context.active();
    const actor = createThreadActor(actorDeps, row, {
      role,
      awaited,
      input,
      traceId: traceIdOf(active) ?? row.proposalId.replaceAll('-', ''),
      traceparent: traceparentOf(active),
    });
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
        await access.checkSince(actor, seen.accessVersion);
        if (seen.version === actor.version()) return;
        // Deleting a workflow cancels and supersedes; its viewers hear of that before they hear of an end.
        const deleted = seen.cancelRequested || seen.status === 'resolved';
        if (deleted) await access.checkAll(actor);
        const row = await readThread(db, { threadId: seen.threadId });
        if (row !== null) actor.observe(row);
      }),
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
          await access.check(threadId, viewer);
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
      outside.runInAsyncScope(
        () => void guarded(log, 'a thread could not be read again', () => look([threadId])),
      );
    },
    reread() {
      void guarded(log, 'threads could not be read again', () => look([...live.keys()]));
    },
    counts() {
      const counts: Record<string, number> = {};
      for (const actor of live.values()) counts[actor.state()] = (counts[actor.state()] ?? 0) + 1;
      return counts;
    },
    size: () => live.size,
    async start() {
      if (deps.sole) await guarded(log, 'what was left behind could not be taken over', takeOvers.takeAll);
      lastTick = deps.now();
      accessWatch.read();
      rounds.tick(TICK_MS, tick);
      rounds.tick(TICK_MS, closeUnknownViewers);
      rounds.every(TICK_MS, readAll, 'threads could not be read again');
      rounds.every(OWN_ROWS_MS, reviveOwn, 'own rows could not be read');
      rounds.every(NODES_MS, takeOvers.poll, 'replicas could not be watched');
      rounds.every(SWEEP_MS, takeOvers.sweep, 'overdue runs could not be swept');
    },
    async stop() {
      stopping = true;
      await handOver.all(Promise.allSettled([rounds.stop(), takeOvers.settled()]), () => live.values());
      live.clear();
      threads.clear();
    },
    giveUpRest: handOver.rest,
  };
}
