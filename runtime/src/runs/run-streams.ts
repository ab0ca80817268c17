import type { AgentRunner } from '../agent-runner.js';
import type { RunRow, RunStore } from '../db/runs-store.js';
import { Problem } from '../errors.js';
import type { EventLog, EventLogStore } from './event-log.js';
import type { RunCleanup } from './run-cleanup.js';
import { type RunIntake, reached } from './run-intake.js';
import type { RunSupervisor } from './run-supervisor.js';

/** Finds the log that a reader asks for. */
export interface RunStreams {
  /**
   * Knows before the upgrade whether there is something to read; the log itself may have to wait for
   * its epoch's commit. It resolves to null where the run went meanwhile: the reader comes back.
   * @throws {Problem} thread_not_found, not_ready.
   */
  find(threadId: string): Promise<() => Promise<EventLog | null>>;
}

export interface RunStreamsDeps {
  runner: AgentRunner;
  store: RunStore;
  supervisor: RunSupervisor;
  intake: RunIntake;
  cleanup: RunCleanup;
  logs: EventLogStore;
}

export function createRunStreams(deps: RunStreamsDeps): RunStreams {
  const { runner, store, supervisor, intake, cleanup, logs } = deps;
  const rebuilding = new Map<string, Promise<EventLog | null>>();

  /** A finished run whose log is gone: its whole state, its error if it failed, its end. */
  const rebuild = async (row: RunRow): Promise<EventLog | null> => {
    const checkpoint = await runner.read(row.threadId);
    const epoch = await store.rebuiltEpoch(row.threadId);
    if (epoch === null || cleanup.isGoing(row.threadId)) return null;
    const log = logs.begin(row.threadId, epoch);
    const rest = JSON.stringify({ todos: checkpoint?.todos ?? [], messages: checkpoint?.messages ?? [] });
    log.appendJson('on_state_update', `{"files":${row.files ?? '{}'},${rest.slice(1)}`);
    if (row.error !== null) log.appendJson('error', row.error);
    log.append('end', {});
    log.end();
    return log;
  };

  const rebuilt = (row: RunRow): Promise<EventLog | null> => {
    const before = rebuilding.get(row.threadId);
    if (before !== undefined) return before;
    const work = reached(() => rebuild(row)).finally(() => rebuilding.delete(row.threadId));
    rebuilding.set(row.threadId, work);
    return work;
  };

  const inMemory = (threadId: string): (() => Promise<EventLog | null>) | null => {
    const live = supervisor.get(threadId);
    if (live !== undefined) return () => live.log();
    const log = logs.get(threadId);
    return log?.state === 'ended' ? async () => log : null;
  };

  return {
    async find(threadId) {
      if (cleanup.isGoing(threadId)) throw new Problem('thread_not_found');
      const held = inMemory(threadId);
      if (held !== null) return held;
      await intake.settled(threadId);
      const row = await reached(() => store.find(threadId));
      if (row === null) throw new Problem('thread_not_found');
      // The row was read after the memory: the run may have begun, or ended, between the two.
      const begun = inMemory(threadId);
      if (begun !== null) return begun;
      if (row.status === 'queued' || row.status === 'running')
        throw new Problem('not_ready', 'The run is being taken over');
      const log = await rebuilt(row);
      if (log === null) throw new Problem('thread_not_found');
      return async () => log;
    },
  };
}
