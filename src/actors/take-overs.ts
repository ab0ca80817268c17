import { randomUUID } from 'node:crypto';
import type { CommonQueryMethods } from 'slonik';
import { forgetNodes, listNodes, type NodeRow } from '../db/nodes.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { countUnfinished, listOverdue, listReviveable, takeOver } from '../db/threads.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createDeathWatch, type DeadNode, LARGEST_GAP_MS } from './death-watch.js';
import { createOutageRest } from './outage-rest.js';
import { createLeftBehind, type LeftBehind, roomInShare } from './take-over-share.js';

export interface TakeOversDeps {
  db: CommonQueryMethods;
  node: string;
  /** Monotonic milliseconds. */
  now: () => number;
  metrics: Pick<Metrics, 'threadsTakenOverTotal'>;
  log: Logger;
  /** The row names this replica now. Resolves when its run is being read, or could not be at once. */
  gained: (row: ThreadRow) => Promise<void>;
  isStopping: () => boolean;
}

/** What this replica takes over from others: from dead ones, from those that gave a thread up, from stuck ones. */
export interface TakeOvers {
  /** Twice a second: reads all beats, and begins to take over what they say. */
  poll(): Promise<void>;
  /** Now and then: takes over runs whose time is over and that nobody ends. */
  sweep(): Promise<void>;
  /** No other replica can be alive: everything is taken over, whatever its owner's beat. */
  takeAll(): Promise<void>;
  /** Whether another replica lives and says that it reaches the runtime. */
  anotherReaches(): boolean;
  /** This replica is giving the thread up: until `settled` says that it has not, or for a while after it has, the others come first. */
  givingUp(threadId: string): { settled(happened: boolean): void };
  /** Whether the thread was taken over and waits for its turn to be opened. */
  waits(threadId: string): boolean;
  /** Resolves when nothing is being taken over or opened. */
  settled(): Promise<void>;
}

const BATCH = 200;
/** Statements side by side; requests and commits want connections, too. */
const TAKEN_AT_ONCE = 8;
/** Threads opened side by side: each makes a call and a socket to the runtime. */
const OPENED_AT_ONCE = 50;
/** Looks again at once, in one round, after others were quicker. */
const RACES = 3;
const OTHERS_FIRST_MS = 15_000;
/** An owner that lives has ended an overdue run long before. */
const OVERDUE_GRACE_MS = 60_000;

type Beat = number | null | 'any';

const first = <Value>(values: ReadonlyMap<string, Value>): Value | undefined => values.values().next().value;

/** The rules of `guarantees.md` 12 and 13 over the statements of `db/threads.ts`. */
export function createTakeOvers(deps: TakeOversDeps): TakeOvers {
  const { db, node, log } = deps;
  const watch = createDeathWatch(node);
  const rest = createOutageRest();
  const leftBehind = createLeftBehind<ThreadRow>();
  const leftOverdue = createLeftBehind<ThreadRow>();
  /** Since when; `Infinity` while the commit has no answer yet, which others see before it. */
  const givenUp = new Map<string, number>();
  let nodes: NodeRow[] = [];
  let dead = new Map<string, DeadNode>();
  const unopened = new Map<string, ThreadRow>();
  const openers = new Set<Promise<void>>();
  let taking: Promise<void> = Promise.resolve();
  let busy = false;

  const livingOthers = () => nodes.filter(({ id }) => id !== node && !dead.has(id));

  async function lookAtNodes(): Promise<void> {
    const asked = deps.now();
    try {
      nodes = await listNodes(db);
    } catch (error) {
      watch.failed();
      rest.failed();
      throw error;
    }
    const now = deps.now();
    // A database that stood still for so long kept the beats from moving, too.
    if (now - asked > LARGEST_GAP_MS) rest.failed();
    rest.answered(now);
    dead = new Map(watch.seen(nodes, now).map((each) => [each.id, each]));
  }

  function left(now: number): string[] {
    for (const [threadId, since] of givenUp) if (now - since >= OTHERS_FIRST_MS) givenUp.delete(threadId);
    return livingOthers().length === 0 ? [] : [...givenUp.keys()];
  }

  async function chosen(rows: ThreadRow[], by: LeftBehind<ThreadRow>): Promise<ThreadRow[]> {
    if (rows.length === 0) return by.choose(rows, 0, deps.now());
    const unfinished = await countUnfinished(db, { node });
    return by.choose(rows, roomInShare({ node, nodes, dead: new Set(dead.keys()), unfinished }), deps.now());
  }

  async function takeOne(row: ThreadRow, fromBeat: Beat): Promise<boolean> {
    const { threadId, ownerNode: fromNode, ownerGeneration: fromGeneration } = row;
    const transitionId = randomUUID();
    const taken = await takeOver(db, {
      threadId,
      fromNode,
      fromGeneration,
      fromBeat,
      toNode: node,
      transitionId,
    });
    if (taken === null) return false;
    if (fromNode !== null && fromBeat !== 'any') deps.metrics.threadsTakenOverTotal.inc();
    const since = fromNode === null ? undefined : dead.get(fromNode)?.since;
    const took = since === undefined ? {} : { took_ms: Math.round(deps.now() - since) };
    log.info({ thread_id: threadId, from_node: fromNode, ...took }, 'thread taken over');
    unopened.set(threadId, taken);
    if (openers.size < OPENED_AT_ONCE) {
      const opener: Promise<void> = openThoseTaken().finally(() => openers.delete(opener));
      openers.add(opener);
    }
    return true;
  }

  /** Beside the taking: that a thread has an owner again must not wait for the runtime. */
  async function openThoseTaken(): Promise<void> {
    for (let next = first(unopened); next !== undefined && !deps.isStopping(); next = first(unopened)) {
      const { threadId } = next;
      unopened.delete(threadId);
      // The row is ours whatever comes of this: the look at our own rows revives it.
      await deps.gained(next).catch((err: unknown) => {
        log.warn({ err, thread_id: threadId }, 'a thread that was taken over could not be opened');
      });
    }
  }

  /** How many were taken; rejects with the first error when all are through. */
  async function take(rows: readonly ThreadRow[], beatOf: (row: ThreadRow) => Beat): Promise<number> {
    const waiting = [...rows];
    let taken = 0;
    const worker = async () => {
      for (let row = waiting.shift(); row !== undefined && !deps.isStopping(); row = waiting.shift()) {
        if (await takeOne(row, beatOf(row))) taken++;
      }
    };
    const workers = Array.from({ length: Math.min(TAKEN_AT_ONCE, rows.length) }, worker);
    const failed = (await Promise.allSettled(workers)).find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return taken;
  }

  const beatAtDeath = ({ ownerNode }: ThreadRow): Beat =>
    ownerNode === null ? null : (dead.get(ownerNode)?.beat ?? null);

  async function takeFromTheDead(): Promise<void> {
    let races = 0;
    for (let more = true; more && !deps.isStopping(); ) {
      const now = deps.now();
      const listed = await listReviveable(db, {
        node,
        all: false,
        // What was given up has no owner whose silence could deceive.
        owned: !rest.resting(now),
        deadNodes: [...dead.keys()],
        except: left(now),
        limit: BATCH,
      });
      // The list may say of one more that it has no owner.
      const ours = new Set(left(deps.now()));
      const rows = listed.filter(({ threadId }) => !ours.has(threadId));
      const wanted = await chosen(rows, leftBehind);
      const taken = await take(wanted, beatAtDeath);
      // What another replica was quicker to take leaves room for others.
      if (taken < wanted.length) races++;
      more = taken < wanted.length ? races <= RACES : taken > 0 && listed.length === BATCH;
    }
    if (dead.size > 0) await forgetNodes(db, { ids: [...dead.keys()] });
  }

  return {
    async poll() {
      await lookAtNodes();
      // Not awaited: while many threads are taken over the beats are read on, or the watch would begin anew.
      if (busy || deps.isStopping()) return;
      busy = true;
      taking = takeFromTheDead()
        .catch((err: unknown) => log.warn({ err }, 'threads could not be taken over'))
        .finally(() => {
          busy = false;
        });
    },
    async sweep() {
      if (rest.resting(deps.now())) return;
      const rows = await listOverdue(db, { node, graceMs: OVERDUE_GRACE_MS, limit: BATCH });
      await take(await chosen(rows, leftOverdue), () => 'any');
    },
    async takeAll() {
      const all = await listNodes(db);
      const beats = new Map(all.map(({ id, beat }) => [id, beat]));
      const beatOf = ({ ownerNode }: ThreadRow) =>
        ownerNode === null ? null : (beats.get(ownerNode) ?? null);
      for (let more = true; more && !deps.isStopping(); ) {
        const rows = await listReviveable(db, { node, all: true, limit: BATCH });
        more = (await take(rows, beatOf)) > 0 && rows.length === BATCH;
      }
      await forgetNodes(db, { ids: all.map(({ id }) => id).filter((id) => id !== node) });
    },
    anotherReaches: () => livingOthers().some(({ runtimeReachable }) => runtimeReachable),
    givingUp(threadId) {
      givenUp.set(threadId, Number.POSITIVE_INFINITY);
      return {
        settled(happened) {
          if (happened) givenUp.set(threadId, deps.now());
          else givenUp.delete(threadId);
        },
      };
    },
    waits: (threadId) => unopened.has(threadId),
    async settled() {
      await taking;
      await Promise.all(openers);
    },
  };
}
