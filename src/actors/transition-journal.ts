import { type Context, context } from '@opentelemetry/api';
import type { CommonQueryMethods } from 'slonik';
import { isContentError, isDuplicate, withDeadline } from '../db/database-errors.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { type Committed, type Fence, findTransition } from '../db/run-progress.js';
import { readThread } from '../db/threads.js';
import type { Logger } from '../telemetry/logger.js';

export type JournalOutcome =
  | { kind: 'committed' }
  /** The row is ours, or ours again, and as it is now the commit makes no sense any more: `goOn` said so. */
  | { kind: 'moved'; row: ThreadRow }
  /** Another replica owns the row. */
  | { kind: 'lost'; row: ThreadRow }
  /** The row was ended, by an earlier commit of ours or by somebody else. */
  | { kind: 'finished'; row: ThreadRow }
  /** The database refused the content; the same would be refused again. */
  | { kind: 'refused'; error: Error }
  | { kind: 'aborted' };

export interface JournalDeps {
  db: CommonQueryMethods;
  node: string;
  newId: () => string;
  sleep: (milliseconds: number) => Promise<void>;
  /** Milliseconds before the next try while the database does not answer. */
  delayMs: (failures: number) => number;
  queryDeadlineMs: number;
  /** A commit found that somebody else has changed the row, which is ours still: a cancel, say. Nobody else may see it. */
  onMoved: (row: ThreadRow) => void;
  /** The trace of the request that asked for the run: its commits are part of it. */
  trace?: Context | undefined;
  log: Pick<Logger, 'warn'>;
}

/** The owner's commits of one thread, one after another, each looked up when its outcome is unknown. */
export interface TransitionJournal {
  /**
   * Makes a commit. Where it touched no row, or got no answer and was not made, `goOn` decides from the row of now
   * whether the same commit is tried again. Resolves when the outcome is certain, however long the database is away.
   */
  append(
    commit: (fence: Fence) => Promise<Committed>,
    goOn?: (row: ThreadRow) => boolean,
  ): Promise<JournalOutcome>;
  /** What the journal knows of the row. */
  version(): number;
  generation(): number;
  /** The row was taken over by this replica again. */
  adopt(row: ThreadRow): void;
  /** No further try of anything. */
  abort(): void;
}

export function createTransitionJournal(deps: JournalDeps, row: ThreadRow): TransitionJournal {
  const { db, log } = deps;
  let { version, ownerGeneration: generation } = row;
  /** The row that `version` was read with, or a version before it. */
  let known = row;
  let tail: Promise<unknown> = Promise.resolve();
  let aborted = false;

  /** Repeats a read until the database answers; null when aborted. */
  async function answered<Result>(read: () => Promise<Result>): Promise<{ value: Result } | null> {
    for (let failures = 0; !aborted; failures++) {
      try {
        return { value: await withDeadline(read(), deps.queryDeadlineMs) };
      } catch {
        await deps.sleep(deps.delayMs(failures));
      }
    }
    return null;
  }

  /** What became of a commit that touched no row or got no answer (`guarantees.md` 2). */
  async function lookUp(
    transitionId: string,
    decidedUnder: number,
  ): Promise<JournalOutcome | { ours: ThreadRow; moved: boolean }> {
    const found = await answered(() => findTransition(db, { proposalId: row.proposalId, transitionId }));
    if (found === null) return { kind: 'aborted' };
    if (found.value !== null) {
      version = Math.max(version, found.value.version);
      return { kind: 'committed' };
    }
    const now = await answered(() => readThread(db, { proposalId: row.proposalId }));
    if (now === null || now.value === null) return { kind: 'aborted' };
    const current = now.value;
    if (current.status !== 'processing') return { kind: 'finished', row: current };
    if (current.ownerGeneration !== generation || current.ownerNode !== deps.node) {
      return { kind: 'lost', row: current };
    }
    // Ours again, after somebody else's: what was decided before that is not what the row needs now.
    if (decidedUnder !== generation) return { kind: 'moved', row: current };
    const moved = current.version !== version;
    version = current.version;
    known = current;
    if (moved) deps.onMoved(current);
    return { ours: current, moved };
  }

  async function run(
    commit: (fence: Fence) => Promise<Committed>,
    goOn: (row: ThreadRow) => boolean,
    decidedUnder: number,
  ): Promise<JournalOutcome> {
    const transitionId = deps.newId();
    // A commit before this one may have brought a version whose row this one was not decided from.
    if (!goOn(known)) return { kind: 'moved', row: known };
    for (let failures = 0; !aborted; ) {
      let untouched = false;
      let duplicate: Error | null = null;
      try {
        const fence = { proposalId: row.proposalId, generation: decidedUnder, version, transitionId };
        const committed = await withDeadline(commit(fence), deps.queryDeadlineMs);
        if (committed !== null) {
          version = committed.version;
          return { kind: 'committed' };
        }
        untouched = true;
      } catch (error) {
        // What is there already may be our own: an earlier try may have been made behind the look for it.
        if (isDuplicate(error)) duplicate = error as Error;
        else if (isContentError(error)) return { kind: 'refused', error: error as Error };
        else {
          log.warn({ err: error, failures }, 'a commit got no answer');
          await deps.sleep(deps.delayMs(failures++));
        }
      }
      const outcome = await lookUp(transitionId, decidedUnder);
      if (!('ours' in outcome)) return outcome;
      if (duplicate !== null) return { kind: 'refused', error: duplicate };
      // Asked of a row that has not moved, too: an earlier commit may have followed the cancel that this one's
      // condition refuses, and the same statement would touch no row for ever.
      if (!goOn(outcome.ours)) return { kind: 'moved', row: outcome.ours };
      if (!outcome.moved && untouched) await deps.sleep(deps.delayMs(failures++));
    }
    return { kind: 'aborted' };
  }

  return {
    append(commit, goOn = () => true) {
      const decidedUnder = generation;
      // What makes the commit happen may come from a timer, or from a socket that knows of no request.
      const outcome = tail.then(() =>
        context.with(deps.trace ?? context.active(), () => run(commit, goOn, decidedUnder)),
      );
      tail = outcome.catch(() => undefined);
      return outcome;
    },
    version: () => version,
    generation: () => generation,
    adopt(taken) {
      version = taken.version;
      generation = taken.ownerGeneration;
      known = taken;
    },
    abort() {
      aborted = true;
    },
  };
}
