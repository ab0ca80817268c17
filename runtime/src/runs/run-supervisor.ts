import { type Span, SpanStatusCode, type Tracer } from '@opentelemetry/api';
import type { AgentRunner, RunOutcome } from '../agent-runner.js';
import type { RunStore, StartableRun } from '../db/runs-store.js';
import type { Logger } from '../telemetry/logger.js';
import { contextOfTraceparent } from '../telemetry/tracing.js';
import type { EventLog, EventLogStore } from './event-log.js';
import type { IdleWatch } from './idle-watch.js';
import { type AgentControl, createAgentControl, deadlineExceeded, type LiveRun } from './live-run.js';
import { StoppedError, untilAnswered } from './retry.js';
import type { QueueTicket, RunQueue } from './run-queue.js';
import { wholeStateOf } from './whole-state.js';

/** All runs of this process that are not finished: queued, running, or waiting for PostgreSQL. */
export interface RunSupervisor {
  /**
   * Takes a run whose row is committed. Its log is there when this returns.
   * @param marked whether the row says running already.
   */
  start(run: StartableRun, marked: boolean): void;
  get(threadId: string): LiveRun | undefined;
  /** Aborts a run that is being cleaned up and resolves when nothing of it moves any more. */
  forget(threadId: string): Promise<void>;
  /** Lets runs reach the end of their step, at most `graceMs`; what is unfinished resumes in the next process. */
  stop(graceMs: number): Promise<void>;
}

export interface RunSupervisorDeps {
  runner: AgentRunner;
  store: RunStore;
  logs: EventLogStore;
  queue: RunQueue;
  idleWatch: IdleWatch;
  tracer: Tracer;
  logger: Logger;
  onRunEnded: (status: string, seconds: number) => void;
  /** Monotonic milliseconds. */
  now: () => number;
}

interface Entry extends LiveRun {
  control: AgentControl;
  ticket: QueueTicket;
  gone: boolean;
  done: Promise<void>;
}

/**
 * The life of a run: waits for its turn, is marked running, runs, and is finished in the database
 * before its `error` or `end` leaves. Where PostgreSQL is away it waits and goes on in a new epoch.
 */
export function createRunSupervisor(deps: RunSupervisorDeps, runDeadlineMs: number): RunSupervisor {
  const { runner, store, logs, queue, tracer, now } = deps;
  const entries = new Map<string, Entry>();
  const stopping = new AbortController();
  let left = false;

  const start = (run: StartableRun, marked: boolean): void => {
    const logger = deps.logger.child({ thread_id: run.threadId, trace_id: run.traceId });
    let log: Promise<EventLog | null> = Promise.resolve(logs.begin(run.threadId, run.epoch));
    const control = createAgentControl({
      idleWatch: deps.idleWatch,
      onBuilt: () => entry.ticket.started(),
      onFault: (thrown) => logger.error({ err: thrown }, 'the run could not begin'),
    });
    const entry: Entry = {
      threadId: run.threadId,
      control,
      ticket: queue.enter(),
      gone: false,
      done: Promise.resolve(),
      get files() {
        return control.files;
      },
      log: () => log,
      cancel() {
        control.cancel();
        // One that waits for its turn does not have to wait for its end.
        entry.ticket.leave();
      },
      message: (content) => control.message(content),
    };
    if (run.cancelled) entry.cancel();
    entries.set(run.threadId, entry);

    const waiting = (error: unknown): void => logger.warn({ err: error }, 'waiting for PostgreSQL');
    const answered = <T>(statement: () => Promise<T>): Promise<T> =>
      untilAnswered(statement, stopping.signal, waiting);

    /** One pass through the queue and the agent; the outcome, or null where the run is not ours to run. */
    const pass = async (current: StartableRun, isMarked: boolean, present: EventLog, span: Span) => {
      const mayStart = await entry.ticket.turn;
      if (entry.gone || stopping.signal.aborted) return null;
      if (!mayStart || control.ending !== null) return endedBefore(control);
      const leave = isMarked
        ? { leftMs: runDeadlineMs }
        : await answered(() => store.markRunning(current, runDeadlineMs));
      if (leave === null) return null;
      if (entry.gone || stopping.signal.aborted) return null;
      if (leave.leftMs === 0) control.end(deadlineExceeded);
      if (control.ending !== null) return endedBefore(control);
      logger.info({ epoch: current.epoch, waiting: queue.length }, 'run started');
      span.addEvent('started');
      const resumed = current.epoch > 1;
      return control.run(
        (onEvent) => runner.run(current.threadId, current.input, onEvent, { resumed }),
        present,
        leave.leftMs,
      );
    };

    /** Commits the outcome, then tells it (a reader that sees `end` finds it in the row). */
    const finish = async (
      current: StartableRun,
      present: EventLog,
      outcome: Exclude<RunOutcome, { status: 'interrupted' }>,
    ): Promise<boolean> => {
      if (current.epoch > 1 && present.lastSeq === 0) {
        // A log that is begun anew starts with the whole state, also where its run did not get to speak.
        const state = await answered(() => wholeStateOf({ runner }, current.threadId, current.input));
        present.append('on_state_update', state);
        outcome = { ...outcome, files: { ...state.files, ...outcome.files } };
      }
      const error = outcome.status === 'failed' ? errorOf(outcome.error) : null;
      let told = error;
      let isOurs: boolean;
      try {
        isOurs = await answered(() => store.finish(current, { ...outcome, error }));
      } catch (thrown) {
        if (thrown instanceof StoppedError) throw thrown;
        logger.error({ err: thrown }, 'the outcome was refused by the database');
        told = { code: 'runtime_error', message: 'The result could not be stored', retryable: true };
        isOurs = await answered(() => store.finish(current, { status: 'failed', files: {}, error: told }));
      }
      if (!isOurs) return false;
      if (told !== null) present.append('error', told);
      present.append('end', {});
      logger.info({ status: told === null ? 'completed' : 'failed', code: told?.code }, 'run finished');
      return true;
    };

    const live = async (): Promise<void> => {
      let current = run;
      let isMarked = marked;
      for (;;) {
        const present = await log;
        if (present === null) return;
        const startedAt = now();
        const span = tracer.startSpan(
          'run',
          { attributes: { thread_id: run.threadId, epoch: current.epoch } },
          contextOfTraceparent(run.traceparent),
        );
        try {
          const outcome = await pass(current, isMarked, present, span);
          if (outcome === null || left || entry.gone) return present.abandon();
          if (outcome.status !== 'interrupted') {
            if (outcome.status === 'failed')
              span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.error.code });
            if (!(await finish(current, present, outcome))) return present.abandon();
            entries.delete(run.threadId);
            present.end();
            deps.onRunEnded(outcome.status, (now() - startedAt) / 1000);
            return;
          }
          span.addEvent('interrupted', { reason: outcome.reason });
          logger.warn({ reason: outcome.reason }, 'run interrupted');
          if (stopping.signal.aborted) return present.abandon();
        } finally {
          entry.ticket.leave();
          span.end();
        }
        // Who opens the stream from here on waits for the log of the next epoch.
        let begin: (next: EventLog | null) => void = () => {};
        log = new Promise((resolve) => {
          begin = resolve;
        });
        present.abandon();
        const next = await answered(() => store.beginEpoch(current)).catch((thrown: unknown) => {
          begin(null);
          throw thrown;
        });
        if (next === null || entry.gone) return begin(null);
        if (next.cancelled) control.cancel();
        current = { ...current, epoch: next.epoch };
        isMarked = false;
        entry.ticket = queue.enter();
        if (control.ending !== null) entry.ticket.leave();
        begin(logs.begin(run.threadId, next.epoch));
      }
    };

    entry.done = live()
      .catch((thrown: unknown) => {
        if (!(thrown instanceof StoppedError)) logger.error({ err: thrown }, 'run lost');
        logs.get(run.threadId)?.abandon();
      })
      .finally(() => {
        entry.ticket.leave();
        if (entries.get(run.threadId) === entry) entries.delete(run.threadId);
      });
  };

  return {
    start,
    get: (threadId) => entries.get(threadId),
    async forget(threadId) {
      const entry = entries.get(threadId);
      if (entry === undefined) return;
      entry.gone = true;
      entry.cancel();
      await entry.done;
    },
    async stop(graceMs) {
      stopping.abort();
      const all = [...entries.values()];
      for (const entry of all) {
        entry.control.drain();
        // Harmless for one that runs: its place is not given to another, since those that wait see the stop.
        entry.ticket.leave();
      }
      const settled = Promise.all(all.map((entry) => entry.done));
      if (await within(settled, graceMs)) return;
      left = true;
      for (const entry of all) entry.control.leave();
      await within(settled, 1_000);
    },
  };
}

function endedBefore(control: AgentControl): RunOutcome {
  const error = control.ending ?? deadlineExceeded;
  return { status: 'failed', files: control.files ?? {}, error };
}

/** Exactly the fields of the contract: an error of an agent may carry more. */
function errorOf({ code, message, retryable }: { code: string; message: string; retryable: boolean }) {
  return { code, message, retryable };
}

async function within(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const inTime = await Promise.race([work.then(() => true), timeout]);
  clearTimeout(timer);
  return inTime;
}
