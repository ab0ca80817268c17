import type { RunEvent, RunHandle, RunOutcome, WireFiles } from '../agent-runner.js';
import type { RunError } from '../db/runs-store.js';
import type { EventLog } from './event-log.js';
import type { IdleWatch } from './idle-watch.js';

const cancelled: RunError = { code: 'cancelled', message: 'The run was cancelled', retryable: false };
const stalled: RunError = { code: 'stalled', message: 'The run stopped saying anything', retryable: true };
export const deadlineExceeded: RunError = {
  code: 'deadline_exceeded',
  message: 'The run took longer than it may',
  retryable: true,
};

/** What a run that is not finished looks like to the rest of the service. */
export interface LiveRun {
  readonly threadId: string;
  /** The newest files that the run told; null before the first. */
  readonly files: WireFiles | null;
  /** The present log; waits while a new epoch is being committed. Null: the run is gone, ask its row. */
  log(): Promise<EventLog | null>;
  cancel(): void;
  /** False where the run no longer listens. */
  message(content: string): boolean;
}

/** One run's hands on its agent: what is said before the agent is there is kept for it. */
export interface AgentControl {
  readonly files: WireFiles | null;
  /** Why the run must not start, or is being ended; null while nobody asked. */
  readonly ending: RunError | null;
  /** Runs the agent until it has stopped, by itself, by a limit or because it was asked to. */
  run(
    begin: (onEvent: (event: RunEvent) => void) => RunHandle,
    log: EventLog,
    leftMs: number,
  ): Promise<RunOutcome>;
  end(error: RunError): void;
  cancel(): void;
  message(content: string): boolean;
  drain(): void;
  /** No events are taken from now on: the process leaves the run to the next one. */
  leave(): void;
}

export interface AgentControlDeps {
  idleWatch: IdleWatch;
  /** The agent is built and speaks, or has had `buildMs` for it. */
  onBuilt: () => void;
  /** The port broke its promise not to throw. */
  onFault: (thrown: unknown) => void;
}

/** A model may take long to say its first word; building, which blocks the loop, never takes so long. */
const buildMs = 2_000;

/** Timers of Node take 31 bits; a longer deadline is no deadline in this process. */
const longestTimerMs = 2 ** 31 - 1;

export function createAgentControl({ idleWatch, onBuilt, onFault }: AgentControlDeps): AgentControl {
  let files: WireFiles | null = null;
  let ending: RunError | null = null;
  let handle: RunHandle | null = null;
  let left = false;
  let closed = false;
  let early: string[] = [];

  const end = (error: RunError): void => {
    if (ending !== null) return;
    ending = error;
    handle?.abort(error);
  };

  return {
    get files() {
      return files;
    },
    get ending() {
      return ending;
    },
    end,
    cancel: () => end(cancelled),
    message(content) {
      if (closed || ending !== null) return false;
      if (handle === null) early.push(content);
      else handle.message(content);
      return true;
    },
    drain: () => handle?.drain(),
    leave() {
      left = true;
      handle?.abort({ code: 'interrupted', message: 'The runtime stops', retryable: true });
    },
    async run(begin, log, leftMs) {
      const idle = idleWatch.watch(() => end(stalled));
      const deadline = setTimeout(() => end(deadlineExceeded), Math.min(leftMs, longestTimerMs));
      const building = setTimeout(onBuilt, buildMs);
      // An agent that never stops must not hold the process when all else has ended.
      deadline.unref();
      building.unref();
      let events = 0;
      try {
        handle = begin((event) => {
          if (left || log.state !== 'open') return;
          idle.touch();
          // The first event is the state that the run begins with, told before anything is built.
          if (++events === 2) onBuilt();
          if (event.event_type === 'on_state_update' && isObject(event.data.files))
            files = event.data.files as WireFiles;
          log.append(event.event_type, event.data);
        });
        for (const content of early) handle.message(content);
        early = [];
        if (ending !== null) handle.abort(ending);
        const outcome = await handle.done;
        closed = outcome.status !== 'interrupted';
        return outcome;
      } catch (thrown) {
        onFault(thrown);
        closed = true;
        return {
          status: 'failed',
          files: files ?? {},
          error: { code: 'runtime_error', message: 'The run could not begin', retryable: true },
        };
      } finally {
        handle = null;
        clearTimeout(deadline);
        clearTimeout(building);
        idle.stop();
      }
    },
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
