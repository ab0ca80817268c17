import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentRunner } from '../agent-runner.js';
import type { RunStore } from '../db/runs-store.js';
import { Problem } from '../errors.js';
import type { Logger } from '../telemetry/logger.js';
import type { EventLogStore } from './event-log.js';
import { untilAnswered } from './retry.js';
import { type RunIntake, reached } from './run-intake.js';
import type { RunSupervisor } from './run-supervisor.js';

/** Deletes what runs leave behind. */
export interface RunCleanup {
  /**
   * Bars the thread, ends its run, deletes its checkpoints; true where there was something. Repeating
   * an unfinished one finishes it.
   * @throws {Problem} not_ready, where it could not be finished.
   */
  cleanUp(threadId: string): Promise<boolean>;
  /** Whether a clean-up of the thread is under way, and its tombstone committed: before that the thread is there. */
  isGoing(threadId: string): boolean;
  /** Finishes what another process began; never rejects. */
  finishUnpurged(signal: AbortSignal): Promise<void>;
}

export interface RunCleanupDeps {
  runner: AgentRunner;
  store: RunStore;
  supervisor: RunSupervisor;
  intake: RunIntake;
  logs: EventLogStore;
  logger: Logger;
}

/** @param abortGraceMs how long an aborted run may take to stop before the caller is told to come back. */
export function createRunCleanup(deps: RunCleanupDeps, abortGraceMs: number): RunCleanup {
  const { runner, store, supervisor, intake, logs, logger } = deps;
  const going = new Map<string, Promise<boolean>>();
  const barred = new Set<string>();

  const remove = async (threadId: string): Promise<boolean> => {
    // First of all: from this commit on nothing starts or resumes the thread, whatever fails below.
    const { had } = await reached(() => store.tombstone(threadId));
    barred.add(threadId);
    // An invoke that was faster has started its run by then, a slower one finds the tombstone.
    await intake.settled(threadId);
    const ended = await Promise.race([
      supervisor.forget(threadId).then(() => true),
      sleep(abortGraceMs, false, { ref: false }),
    ]);
    if (!ended) throw new Problem('not_ready', 'The run has not stopped yet');
    logs.drop(threadId);
    // After the loop's end: a checkpoint written behind an abort would come back.
    const purged = await reached(() => runner.purge(threadId));
    if (had) await reached(() => store.markPurged(threadId));
    logger.info({ thread_id: threadId, had, purged }, 'thread cleaned up');
    return had || purged;
  };

  const cleanUp = (threadId: string): Promise<boolean> => {
    const before = going.get(threadId);
    if (before !== undefined) return before;
    const work = remove(threadId).finally(() => {
      going.delete(threadId);
      barred.delete(threadId);
    });
    going.set(threadId, work);
    return work;
  };

  return {
    cleanUp,
    isGoing: (threadId) => barred.has(threadId),
    async finishUnpurged(signal) {
      try {
        for (const threadId of await untilAnswered(store.unpurged, signal)) {
          if (!signal.aborted) await untilAnswered(() => cleanUp(threadId), signal);
        }
      } catch (thrown) {
        // The next process finds the same rows, and whoever asked for the clean-up asks again.
        logger.warn({ err: thrown }, 'clean-up left unfinished');
      }
    },
  };
}
