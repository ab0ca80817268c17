import { type InvokeRequest, type ProposalError, storableText } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import { fromCallback, fromPromise } from 'xstate';
import { readInput } from '../db/proposals.js';
import { commitRetry } from '../db/run-progress.js';
import { readAttempts } from '../db/threads.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { LifecycleFact } from '../streams/stream-signals.js';
import type { RunToRead, ThreadPipeline } from '../streams/thread-pipeline.js';
import { limitTime } from '../time-limit.js';
import type { Ownership } from './ownership.js';
import { proposalMachine } from './proposal-machine.js';
import type { Closed, InvokeAnswer, Of, ProposalEvent, Settled, Verdict } from './proposal-types.js';
import type { RunInput } from './run-input.js';

interface ProposalActorsDeps {
  db: CommonQueryMethods;
  client: DeepAgentsRuntimeClient;
  ownership: Pick<Ownership, 'journal' | 'notes' | 'settle'>;
  pipeline: ThreadPipeline;
  proposalId: string;
  /** What every invoke sends, where it was just written; else it is read. */
  input: RunInput | null;
  /** For `trace_id`, and to continue the trace of the request that asked. */
  traceId: string;
  traceparent: string | null;
  maxAttempts: number;
  cancelGraceMs: number;
  /** The attempt that the row names; moves with the commits. */
  current: { attempt: number; jobId: string };
  /** The request still waits for the first invoke: a certain refusal is the answer. */
  awaited: () => boolean;
  /** Every fact of the run, before the machine hears it. */
  onFact: (fact: LifecycleFact) => void;
  /** The pipeline broke: a fault of ours, not of the run. */
  onReadError: (error: unknown) => void;
  newId: () => string;
  sleep: (milliseconds: number, signal?: AbortSignal) => Promise<void>;
  /** Milliseconds before the next attempt. */
  retryDelayMs: (attempt: number) => number;
  /** Milliseconds before the next call, after so many that were not answered. */
  awayDelayMs: (failures: number) => number;
  /** A clean-up has fallen due. */
  onCleanUpDue: () => void;
}

/** Repeats a read of the database until it answers or the actor stops. */
async function untilAnswered<Result>(
  deps: ProposalActorsDeps,
  signal: AbortSignal,
  read: () => Promise<Result>,
): Promise<Result> {
  for (let failures = 0; ; failures++) {
    try {
      return await read();
    } catch (error) {
      if (signal.aborted) throw error;
      await deps.sleep(deps.awayDelayMs(failures), signal);
    }
  }
}

/**
 * An attempt may be followed by another only when the runtime has confirmed its clean-up, or calls it ended
 * (`guarantees.md` 7): two runs of one thread never write side by side.
 */
async function untilEarlierAttemptsAreOver(deps: ProposalActorsDeps, signal: AbortSignal): Promise<void> {
  for (let failures = 0; !signal.aborted; failures++) {
    const attempts = await untilAnswered(deps, signal, () =>
      readAttempts(deps.db, { proposalId: deps.proposalId }),
    );
    const open = attempts.filter((one) => one.attempt < deps.current.attempt && one.cleanedAt === null);
    const over = await Promise.all(
      open.map(async (one) => {
        const asked = await deps.client.getState(one.runtimeThreadId ?? one.jobId, { signal });
        // Not known is not ended: an invoke without an answer may still arrive, until the clean-up is confirmed.
        return asked.kind === 'state' && asked.state.status !== 'running';
      }),
    );
    if (over.every(Boolean)) return;
    await deps.client.pause(deps.awayDelayMs(failures), signal);
  }
}

async function invokeRun(
  deps: ProposalActorsDeps,
  jobId: string,
  signal: AbortSignal,
): Promise<InvokeAnswer> {
  if (deps.current.attempt > 1) await untilEarlierAttemptsAreOver(deps, signal);
  const stored =
    deps.input ??
    ((await untilAnswered(deps, signal, () =>
      readInput(deps.db, { proposalId: deps.proposalId }),
    )) as RunInput);
  const request: InvokeRequest = { trace_id: deps.traceId, job_id: jobId, ...stored };
  for (let failures = 0; ; failures++) {
    const answer = await deps.client.invoke(request, { signal, traceparent: deps.traceparent });
    signal.throwIfAborted();
    if (answer.kind === 'started') return { kind: 'started', runtimeThreadId: answer.threadId };
    // "Any HTTP answer but 200" to the invoke that the request waits for is a refusal. After one without an answer
    // nothing is certain any more: the run may have begun.
    if (answer.kind !== 'unknown' && failures === 0 && deps.awaited()) {
      return { kind: 'refused', message: 'The agent runtime did not take the run. Try again in a moment.' };
    }
    if (answer.kind === 'gone') return { kind: 'gone' };
    if (answer.kind === 'rejected') {
      return { kind: 'rejected', message: `The agent runtime refused the run (${answer.status}).` };
    }
    if (failures === 0) deps.pipeline.fanOut.announce({ event_type: 'on_reconnecting', data: {} });
    await deps.client.pause(deps.awayDelayMs(failures), signal);
  }
}

async function closeAttempt(
  deps: ProposalActorsDeps,
  failure: ProposalError | null,
  signal: AbortSignal,
): Promise<Closed> {
  const { attempt } = deps.current;
  const { journal, notes } = deps.ownership;
  // The runtime's own word, which may hold what PostgreSQL refuses.
  const code = storableText(failure?.code ?? 'runtime_error');
  const next = { attempt: attempt + 1, jobId: deps.newId() };
  const delay = deps.retryDelayMs(attempt);
  const outcome = await journal.append(
    (fence) =>
      commitRetry(deps.db, fence, {
        from: notes.from(),
        event: 'attempt.failed',
        attempt,
        nextAttempt: next.attempt,
        nextJobId: next.jobId,
        outcome: code,
        details: { code, delay_ms: delay },
      }),
    (row) => row.cancelRequestedAt === null && !signal.aborted,
  );
  if (outcome.kind === 'moved') return { kind: 'cancelled' };
  if (outcome.kind === 'finished') return { kind: 'finished', status: outcome.row.status };
  if (outcome.kind === 'refused') throw outcome.error;
  if (outcome.kind !== 'committed') return { kind: 'lost' };
  Object.assign(deps.current, next);
  notes.retrying();
  deps.onCleanUpDue();
  // The machine waits no longer: a cancel came, or a reader follows the thread, with an attempt of its own to tell.
  if (signal.aborted) return { kind: 'lost' };
  const epoch = `${next.attempt}.1`;
  deps.pipeline.beginAttempt(next.attempt, {
    event_type: 'on_retry',
    data: { attempt: next.attempt, max: deps.maxAttempts, delay_ms: delay, epoch },
  });
  await deps.sleep(delay, signal);
  return { kind: 'next', ...next };
}

async function cancelRun(deps: ProposalActorsDeps, threadId: string, signal: AbortSignal): Promise<void> {
  const limit = limitTime(signal, deps.cancelGraceMs);
  const grace = limit.signal;
  for (let failures = 0; !grace.aborted; failures++) {
    const answer = await deps.client.cancel(threadId, { signal: grace });
    if (answer !== 'away') break;
    await deps.client.pause(deps.awayDelayMs(failures), grace);
  }
  // The run has until then to say its end; the machine leaves this state when it does.
  while (!grace.aborted) await deps.sleep(deps.cancelGraceMs, grace);
  limit.end();
}

/** Reads a run and says what it hears, until it is told to stop. */
function readRun(deps: ProposalActorsDeps, run: RunToRead, heard: (fact: LifecycleFact) => void): () => void {
  const reading = deps.pipeline.read(run).subscribe({
    next: (fact) => {
      deps.onFact(fact);
      heard(fact);
    },
    error: deps.onReadError,
  });
  return () => reading.unsubscribe();
}

/**
 * A reader judges nothing: what it hears of the run's end only makes the registry read the row. A run that the
 * runtime does not know may be one that its owner is about to invoke, so it is looked for again.
 */
function followRun(deps: ProposalActorsDeps, run: RunToRead): () => void {
  const left = new AbortController();
  let stop = () => {};
  const begin = (failures: number): void => {
    stop = readRun(deps, run, (fact) => {
      if (fact.type !== 'runtime.unknown') return;
      void deps.sleep(deps.awayDelayMs(failures), left.signal).then(() => {
        if (!left.signal.aborted) begin(failures + 1);
      });
    });
  };
  begin(0);
  return () => {
    left.abort();
    stop();
  };
}

/** The machine on real parts: one for all threads of a replica, since a machine of its own costs a thread 35 KiB. */
export interface ProposalLives {
  readonly machine: typeof proposalMachine;
  /** Names the parts of a thread's actor, before it starts; the answer forgets them. */
  enter(threadId: string, parts: ProposalActorsDeps): () => void;
}

export function createProposalLives(): ProposalLives {
  const lives = new Map<string, ProposalActorsDeps>();
  const partsOf = (threadId: string): ProposalActorsDeps => {
    const parts = lives.get(threadId);
    if (parts === undefined) throw new Error('an actor has no parts');
    return parts;
  };
  const actors = {
    invokeRun: fromPromise<InvokeAnswer, Of<{ jobId: string; awaited: boolean }>>(({ input, signal }) =>
      invokeRun(partsOf(input.threadId), input.jobId, signal),
    ),
    readRun: fromCallback<ProposalEvent, Of<RunToRead>>(({ input, sendBack }) =>
      readRun(partsOf(input.threadId), input, sendBack),
    ),
    cancelRun: fromPromise<void, Of<{ runtimeThreadId: string | null }>>(({ input, signal }) => {
      const parts = partsOf(input.threadId);
      return cancelRun(parts, input.runtimeThreadId ?? parts.current.jobId, signal);
    }),
    closeAttempt: fromPromise<Closed, Of<{ attempt: number; failure: ProposalError | null }>>(
      ({ input, signal }) => closeAttempt(partsOf(input.threadId), input.failure, signal),
    ),
    settleRun: fromPromise<Settled, Of<{ verdict: Verdict }>>(({ input }) =>
      partsOf(input.threadId).ownership.settle(input.verdict),
    ),
    followRun: fromCallback<ProposalEvent, Of<{ attempt: number; runtimeThreadId: string | null }>>(
      ({ input }) => {
        const parts = partsOf(input.threadId);
        const runtimeThreadId = input.runtimeThreadId ?? parts.current.jobId;
        return followRun(parts, { attempt: input.attempt, runtimeThreadId });
      },
    ),
  };
  return {
    machine: proposalMachine.provide({ actors }),
    enter(threadId, parts) {
      lives.set(threadId, parts);
      return () => {
        if (lives.get(threadId) === parts) lives.delete(threadId);
      };
    },
  };
}
