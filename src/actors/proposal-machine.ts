import type { ProposalError, ProposalStatus } from '@ide-orchestrator/protocol';
import { assign, fromCallback, fromPromise, setup } from 'xstate';
import type {
  Closed,
  InvokeAnswer,
  Of,
  ProposalContext,
  ProposalEvent,
  ProposalInput,
  Settled,
  Verdict,
} from './proposal-types.js';
import {
  cancelled,
  endedByRuntime,
  errorOf,
  failed,
  isRetryable,
  lost,
  overdue,
  oversized,
  poisoned,
  refusedVerdict,
  stalled,
  tooLong,
  unreachable,
} from './verdicts.js';

/** The status that the row has now, by our commit or by somebody else's; null where another replica goes on. */
function statusOf(output: Settled | Closed): ProposalStatus | null {
  return output.kind === 'committed' || output.kind === 'finished' ? output.status : null;
}

/** What an owner by take-over goes on with; nobody's request waits for it. */
function gained(event: Extract<ProposalEvent, { type: 'row.gained' }>) {
  const { attempt, jobId, runtimeThreadId } = event;
  return { attempt, jobId, runtimeThreadId, awaited: false };
}

function entryOf(input: ProposalInput): ProposalContext['entry'] {
  if (input.status !== 'processing') return input.status;
  if (input.role !== 'owner') return 'following';
  return input.poisoned ? 'poisoned' : 'invoking';
}

/** Over to the end, with this verdict. */
const judged = (verdict: Verdict) =>
  ({ target: '#proposal.finalizing', actions: { type: 'judge', params: verdict } }) as const;

const missing = () => new Error('this actor is provided by proposal-actors.ts');

/**
 * The proposal's life. Nothing here does anything: the invoked actors are provided by `proposal-actors.ts`, and
 * what must be durable is a state that waits for its commit (`settleRun`, `closeAttempt`).
 */
export const proposalMachine = setup({
  types: {
    context: {} as ProposalContext,
    events: {} as ProposalEvent,
    input: {} as ProposalInput,
    tags: {} as 'working' | 'open' | 'final',
  },
  actors: {
    /** Repeats the invoke of the present job until the answer is conclusive. */
    invokeRun: fromPromise<InvokeAnswer, Of<{ jobId: string; awaited: boolean }>>(() =>
      Promise.reject(missing()),
    ),
    /** Reads the run; sends `runtime.*` facts to the machine. */
    readRun: fromCallback<ProposalEvent, Of<{ attempt: number; runtimeThreadId: string }>>(() => {
      throw missing();
    }),
    /** Asks the runtime to cancel, and resolves when the run has had its time to end. */
    cancelRun: fromPromise<void, Of<{ runtimeThreadId: string | null }>>(() => Promise.reject(missing())),
    /** Commits the end of an attempt and the next one, waits for clean-up and back-off. */
    closeAttempt: fromPromise<Closed, Of<{ attempt: number; failure: ProposalError | null }>>(() =>
      Promise.reject(missing()),
    ),
    /** Commits the verdict, then tells the viewers. */
    settleRun: fromPromise<Settled, Of<{ verdict: Verdict }>>(() => Promise.reject(missing())),
    /** Reads the run for this replica's viewers, and judges nothing. */
    followRun: fromCallback<ProposalEvent, Of<{ attempt: number; runtimeThreadId: string | null }>>(() => {
      throw missing();
    }),
  },
  actions: {
    judge: assign((_, verdict: Verdict) => ({ verdict })),
  },
  guards: {
    retryable: ({ context, event }) =>
      event.type === 'runtime.failed' && isRetryable(errorOf(event)) && context.attempt < context.maxAttempts,
    attemptsLeft: ({ context }) => context.attempt < context.maxAttempts,
    cancelled: ({ context }) => context.cancelled,
  },
}).createMachine({
  id: 'proposal',
  context: ({ input }) => ({
    proposalId: input.proposalId,
    threadId: input.threadId,
    attempt: input.attempt,
    maxAttempts: input.maxAttempts,
    jobId: input.jobId,
    runtimeThreadId: input.runtimeThreadId,
    awaited: input.awaited,
    cancelled: input.cancelled,
    verdict: null,
    failure: null,
    entry: entryOf(input),
  }),
  initial: 'beginning',
  on: {
    'row.lost': '.following',
    'row.finished': [
      { guard: ({ event }) => event.status === 'completed', target: '.completed' },
      { guard: ({ event }) => event.status === 'failed', target: '.failed' },
      { guard: ({ event }) => event.status === 'resolved', target: '.resolved' },
    ],
  },
  states: {
    /** Left at once: where the row says that the life goes on. */
    beginning: {
      always: [
        { guard: ({ context }) => context.entry === 'completed', target: 'completed' },
        { guard: ({ context }) => context.entry === 'failed', target: 'failed' },
        { guard: ({ context }) => context.entry === 'resolved', target: 'resolved' },
        { guard: ({ context }) => context.entry === 'following', target: 'following' },
        { guard: 'cancelled', target: 'finalizing', actions: assign({ verdict: failed(cancelled) }) },
        {
          guard: ({ context }) => context.entry === 'poisoned',
          target: 'finalizing',
          actions: assign({ verdict: failed(poisoned) }),
        },
        { target: 'invoking' },
      ],
    },
    invoking: {
      tags: ['working'],
      invoke: {
        src: 'invokeRun',
        input: ({ context }) => ({
          threadId: context.threadId,
          jobId: context.jobId,
          awaited: context.awaited,
        }),
        onDone: [
          {
            guard: ({ event }) => event.output.kind === 'started',
            target: 'live',
            actions: assign(({ event }) => ({
              awaited: false,
              runtimeThreadId: event.output.kind === 'started' ? event.output.runtimeThreadId : null,
            })),
          },
          {
            guard: ({ event, context }) =>
              event.output.kind === 'gone' && context.attempt < context.maxAttempts,
            target: 'retrying',
            actions: assign({ failure: lost, awaited: false }),
          },
          {
            target: 'finalizing',
            actions: assign(({ event }) => ({ awaited: false, verdict: refusedVerdict(event.output) })),
          },
        ],
      },
      on: {
        'cancel.requested': {
          target: 'finalizing',
          actions: assign({ cancelled: true, verdict: failed(cancelled) }),
        },
        'deadline.passed': judged(overdue(unreachable)),
      },
    },
    /** A run is being read, or its connection is being made again. */
    live: {
      tags: ['working', 'open'],
      initial: 'streaming',
      invoke: {
        src: 'readRun',
        input: ({ context }) => ({
          threadId: context.threadId,
          attempt: context.attempt,
          runtimeThreadId: context.runtimeThreadId ?? context.jobId,
        }),
      },
      states: {
        streaming: {
          on: {
            'runtime.lost': 'reconnecting',
            'deadline.passed': judged(overdue(tooLong)),
          },
        },
        reconnecting: {
          on: {
            'runtime.opened': 'streaming',
            'deadline.passed': judged(overdue(unreachable)),
          },
        },
        /** The cancel is committed; whatever the run still says, it was cancelled. */
        cancelling: {
          invoke: {
            src: 'cancelRun',
            input: ({ context }) => ({
              threadId: context.threadId,
              runtimeThreadId: context.runtimeThreadId,
            }),
            onDone: judged(failed(cancelled)),
            onError: judged(failed(cancelled)),
          },
          on: {
            'cancel.requested': {},
            'runtime.ended': judged(failed(cancelled, true)),
            'runtime.failed': judged(failed(cancelled, true)),
            'runtime.unknown': judged(failed(cancelled)),
            'runtime.oversized': judged(failed(cancelled)),
            'runtime.stalled': judged(failed(cancelled)),
            'deadline.passed': judged(failed(cancelled)),
          },
        },
      },
      on: {
        'runtime.ended': judged({ kind: 'completed' }),
        'runtime.failed': [
          {
            guard: 'retryable',
            target: 'retrying',
            actions: assign(({ event }) => ({ failure: errorOf(event) })),
          },
          {
            target: 'finalizing',
            actions: assign(({ event }) => ({ verdict: failed(errorOf(event), true) })),
          },
        ],
        'runtime.unknown': [
          { guard: 'attemptsLeft', target: 'retrying', actions: assign({ failure: lost }) },
          judged(failed(lost)),
        ],
        'runtime.stalled': [
          { guard: 'attemptsLeft', target: 'retrying', actions: assign({ failure: stalled }) },
          judged(failed(stalled)),
        ],
        'runtime.oversized': judged(failed(oversized)),
        'cancel.requested': { target: '.cancelling', actions: assign({ cancelled: true }) },
      },
    },
    retrying: {
      tags: ['working'],
      invoke: {
        src: 'closeAttempt',
        input: ({ context }) => ({
          threadId: context.threadId,
          attempt: context.attempt,
          failure: context.failure,
        }),
        onDone: [
          {
            guard: ({ event }) => event.output.kind === 'next',
            target: 'invoking',
            actions: assign(({ event, context }) =>
              event.output.kind === 'next'
                ? {
                    attempt: event.output.attempt,
                    jobId: event.output.jobId,
                    runtimeThreadId: null,
                    failure: null,
                  }
                : context,
            ),
          },
          {
            guard: ({ event }) => event.output.kind === 'cancelled',
            target: 'finalizing',
            actions: assign({ cancelled: true, verdict: failed(cancelled) }),
          },
          { guard: ({ event }) => statusOf(event.output) === 'completed', target: 'completed' },
          { guard: ({ event }) => statusOf(event.output) === 'failed', target: 'failed' },
          { guard: ({ event }) => statusOf(event.output) === 'resolved', target: 'resolved' },
          { target: 'following' },
        ],
      },
      on: {
        'cancel.requested': {
          target: 'finalizing',
          actions: assign({ cancelled: true, verdict: failed(cancelled) }),
        },
        'deadline.passed': judged(failed(unreachable)),
      },
    },
    /** The end waits for its commit; only then is it told (P1). */
    finalizing: {
      tags: ['working'],
      invoke: {
        src: 'settleRun',
        input: ({ context }) => ({ threadId: context.threadId, verdict: context.verdict ?? failed(lost) }),
        onDone: [
          {
            guard: ({ event }) => event.output.kind === 'cancelled',
            target: 'finalizing',
            reenter: true,
            actions: assign(({ context }) => ({
              cancelled: true,
              verdict: failed(cancelled, endedByRuntime(context.verdict)),
            })),
          },
          {
            guard: ({ event }) => event.output.kind === 'withdrawn',
            target: 'invoking',
            actions: assign({ verdict: null }),
          },
          { guard: ({ event }) => statusOf(event.output) === 'completed', target: 'completed' },
          { guard: ({ event }) => statusOf(event.output) === 'failed', target: 'failed' },
          { guard: ({ event }) => statusOf(event.output) === 'resolved', target: 'resolved' },
          { target: 'following' },
        ],
      },
      // The commit that is under way decides: it carries the condition, and says so if a cancel came first.
      on: { 'row.finished': {}, 'row.lost': {} },
    },
    /** Another replica owns the row; this one reads for its own viewers. */
    following: {
      tags: ['open'],
      invoke: {
        src: 'followRun',
        input: ({ context }) => ({
          threadId: context.threadId,
          attempt: context.attempt,
          runtimeThreadId: context.runtimeThreadId,
        }),
      },
      on: {
        'row.lost': {},
        'row.advanced': {
          target: 'following',
          reenter: true,
          actions: assign(({ event }) => ({
            attempt: event.attempt,
            jobId: event.jobId,
            runtimeThreadId: event.runtimeThreadId,
          })),
        },
        'row.gained': [
          // The reader knew of the cancel, and nobody will tell it again.
          {
            guard: 'cancelled',
            target: 'finalizing',
            actions: assign(({ event }) => ({ ...gained(event), verdict: failed(cancelled) })),
          },
          {
            guard: ({ event }) => event.poisoned,
            target: 'finalizing',
            actions: assign(({ event }) => ({ ...gained(event), verdict: failed(poisoned) })),
          },
          { target: 'invoking', actions: assign(({ event }) => gained(event)) },
        ],
      },
    },
    /** Waits for a person. */
    completed: {
      tags: ['final'],
      on: { 'row.lost': {} },
    },
    failed: { tags: ['final'], on: { 'row.lost': {}, 'row.finished': {} } },
    resolved: { tags: ['final'], on: { 'row.lost': {}, 'row.finished': {} } },
  },
});
