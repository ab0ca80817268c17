import type { ProposalError } from '@ide-orchestrator/protocol';
import t from 'tap';
import { type Actor, createActor, fromCallback, fromPromise } from 'xstate';
import { proposalMachine } from '../../src/actors/proposal-machine.js';
import {
  type Closed,
  type InvokeAnswer,
  type Of,
  type ProposalEvent,
  type ProposalInput,
  type ProposalState,
  proposalStates,
  type Settled,
  type Verdict,
} from '../../src/actors/proposal-types.js';
import { isRetryable } from '../../src/actors/verdicts.js';
import type { RunEnding } from '../../src/streams/stream-signals.js';

const ending: RunEnding = { errorNumber: 0, errorBytes: null, error: null, endNumber: 9, state: null };
const fault = (retryable: boolean) => ({ code: 'model_error', message: 'The model said no.', retryable });

/** Every event that the machine knows; those with a choice in them stand twice. */
const events = {
  'runtime.opened': { type: 'runtime.opened', epoch: '1.1', runtimeEpoch: 1 },
  'runtime.lost': { type: 'runtime.lost' },
  'runtime.ended': { type: 'runtime.ended', ending },
  'runtime.failed, worth another attempt': { type: 'runtime.failed', ending, error: fault(true) },
  'runtime.failed for good': { type: 'runtime.failed', ending, error: fault(false) },
  'runtime.unknown': { type: 'runtime.unknown' },
  'runtime.oversized': { type: 'runtime.oversized' },
  'runtime.stalled': { type: 'runtime.stalled' },
  'cancel.requested': { type: 'cancel.requested' },
  'deadline.passed': { type: 'deadline.passed' },
  'row.lost': { type: 'row.lost' },
  'row.gained': { type: 'row.gained', attempt: 2, jobId: 'job-2', runtimeThreadId: null, poisoned: false },
  'row.gained, poisoned': {
    type: 'row.gained',
    attempt: 2,
    jobId: 'job-2',
    runtimeThreadId: null,
    poisoned: true,
  },
  'row.advanced': { type: 'row.advanced', attempt: 2, jobId: 'job-2', runtimeThreadId: 'run-2' },
  'row.finished as completed': { type: 'row.finished', status: 'completed' },
  'row.finished as failed': { type: 'row.finished', status: 'failed' },
  'row.finished as resolved': { type: 'row.finished', status: 'resolved' },
} as const satisfies Record<string, ProposalEvent>;
type EventName = keyof typeof events;

/** `=` the event changes nothing there. */
type Expected = ProposalState | '=';

const finishes = {
  'row.finished as completed': 'completed',
  'row.finished as failed': 'failed',
  'row.finished as resolved': 'resolved',
} as const;
const nothing = {
  'runtime.opened': '=',
  'runtime.lost': '=',
  'runtime.ended': '=',
  'runtime.failed, worth another attempt': '=',
  'runtime.failed for good': '=',
  'runtime.unknown': '=',
  'runtime.oversized': '=',
  'runtime.stalled': '=',
  'cancel.requested': '=',
  'deadline.passed': '=',
  'row.lost': '=',
  'row.gained': '=',
  'row.gained, poisoned': '=',
  'row.advanced': '=',
  'row.finished as completed': '=',
  'row.finished as failed': '=',
  'row.finished as resolved': '=',
} as const;

/** The lifecycle, whole: the compiler refuses a state or an event that is missing. */
const table: Record<ProposalState, Record<EventName, Expected>> = {
  invoking: {
    ...nothing,
    ...finishes,
    'cancel.requested': 'finalizing',
    'deadline.passed': 'finalizing',
    'row.lost': 'following',
  },
  streaming: {
    ...nothing,
    ...finishes,
    'runtime.lost': 'reconnecting',
    'runtime.ended': 'finalizing',
    'runtime.failed, worth another attempt': 'retrying',
    'runtime.failed for good': 'finalizing',
    'runtime.unknown': 'retrying',
    'runtime.oversized': 'finalizing',
    'runtime.stalled': 'retrying',
    'cancel.requested': 'cancelling',
    'deadline.passed': 'finalizing',
    'row.lost': 'following',
  },
  reconnecting: {
    ...nothing,
    ...finishes,
    'runtime.opened': 'streaming',
    'runtime.ended': 'finalizing',
    'runtime.failed, worth another attempt': 'retrying',
    'runtime.failed for good': 'finalizing',
    'runtime.unknown': 'retrying',
    'runtime.oversized': 'finalizing',
    'runtime.stalled': 'retrying',
    'cancel.requested': 'cancelling',
    'deadline.passed': 'finalizing',
    'row.lost': 'following',
  },
  cancelling: {
    ...nothing,
    ...finishes,
    'runtime.ended': 'finalizing',
    'runtime.failed, worth another attempt': 'finalizing',
    'runtime.failed for good': 'finalizing',
    'runtime.unknown': 'finalizing',
    'runtime.oversized': 'finalizing',
    'runtime.stalled': 'finalizing',
    'deadline.passed': 'finalizing',
    'row.lost': 'following',
  },
  retrying: {
    ...nothing,
    ...finishes,
    'cancel.requested': 'finalizing',
    'deadline.passed': 'finalizing',
    'row.lost': 'following',
  },
  // The commit that is under way decides; it carries the conditions and says what came of it.
  finalizing: { ...nothing },
  following: { ...nothing, ...finishes, 'row.gained': 'invoking', 'row.gained, poisoned': 'finalizing' },
  completed: { ...nothing, 'row.finished as failed': 'failed', 'row.finished as resolved': 'resolved' },
  failed: { ...nothing },
  resolved: { ...nothing },
};

interface Waiting {
  invoke: (answer: InvokeAnswer) => void;
  close: (closed: Closed) => void;
  settle: (settled: Settled) => void;
  verdicts: Verdict[];
}

const input: ProposalInput = {
  proposalId: 'p',
  threadId: 't',
  attempt: 1,
  maxAttempts: 4,
  jobId: 'job-1',
  runtimeThreadId: null,
  role: 'owner',
  status: 'processing',
  awaited: true,
  cancelled: false,
  poisoned: false,
};

/** The machine with actors that answer when the test says so. */
function machine(overrides: Partial<ProposalInput> = {}) {
  const waiting: Waiting = {
    invoke: () => undefined,
    close: () => undefined,
    settle: () => undefined,
    verdicts: [],
  };
  const actor = createActor(
    proposalMachine.provide({
      actors: {
        invokeRun: fromPromise<InvokeAnswer, Of<{ jobId: string; awaited: boolean }>>(
          () =>
            new Promise((resolve) => {
              waiting.invoke = resolve;
            }),
        ),
        readRun: fromCallback(() => () => undefined),
        cancelRun: fromPromise<void, Of<{ runtimeThreadId: string | null }>>(
          () => new Promise(() => undefined),
        ),
        closeAttempt: fromPromise<Closed, Of<{ attempt: number; failure: ProposalError | null }>>(
          () =>
            new Promise((resolve) => {
              waiting.close = resolve;
            }),
        ),
        settleRun: fromPromise<Settled, Of<{ verdict: Verdict }>>(({ input: { verdict } }) => {
          waiting.verdicts.push(verdict);
          return new Promise((resolve) => {
            waiting.settle = resolve;
          });
        }),
        followRun: fromCallback(() => () => undefined),
      },
    }),
    { input: { ...input, ...overrides } },
  );
  actor.start();
  return { actor, waiting };
}

function stateOf(actor: Actor<typeof proposalMachine>): ProposalState {
  const { value } = actor.getSnapshot();
  return (typeof value === 'string' ? value : value.live) as ProposalState;
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

async function machineIn(state: ProposalState) {
  if (state === 'following') return machine({ role: 'reader' });
  if (state === 'completed' || state === 'failed' || state === 'resolved') return machine({ status: state });
  const made = machine();
  if (state === 'invoking') return made;
  if (state === 'finalizing') {
    made.actor.send({ type: 'deadline.passed' });
    return made;
  }
  made.waiting.invoke({ kind: 'started', runtimeThreadId: 'run' });
  await settled();
  if (state === 'reconnecting') made.actor.send({ type: 'runtime.lost' });
  if (state === 'cancelling') made.actor.send({ type: 'cancel.requested' });
  if (state === 'retrying') made.actor.send({ type: 'runtime.unknown' });
  return made;
}

t.test('every event has its answer in every state', async (t) => {
  for (const state of proposalStates) {
    for (const [name, event] of Object.entries(events)) {
      const { actor } = await machineIn(state);
      t.equal(stateOf(actor), state, `${state} is reached`);
      actor.send(event);
      const expected = table[state][name as EventName];
      t.equal(stateOf(actor), expected === '=' ? state : expected, `${state}: ${name}`);
      t.equal(actor.getSnapshot().status, 'active', `${state}: ${name} breaks nothing`);
      actor.stop();
    }
  }
});

t.test('the answer to invoke decides how the run begins', async (t) => {
  const answers: [InvokeAnswer, ProposalState, string | null][] = [
    [{ kind: 'started', runtimeThreadId: 'run' }, 'streaming', null],
    [{ kind: 'gone' }, 'retrying', null],
    [{ kind: 'rejected', message: 'no' }, 'finalizing', 'runtime_rejected'],
    [{ kind: 'refused', message: 'no' }, 'finalizing', 'runtime_unavailable'],
  ];
  for (const [answer, expected, code] of answers) {
    const { actor, waiting } = machine();
    waiting.invoke(answer);
    await settled();
    t.equal(stateOf(actor), expected, answer.kind);
    if (code !== null) t.match(waiting.verdicts, [{ error: { code } }], `${answer.kind} has its code`);
    actor.stop();
  }
});

t.test('after the last attempt no other follows', async (t) => {
  for (const event of [
    events['runtime.unknown'],
    events['runtime.stalled'],
    events['runtime.failed, worth another attempt'],
  ]) {
    const { actor, waiting } = machine({ attempt: 4 });
    waiting.invoke({ kind: 'started', runtimeThreadId: 'run' });
    await settled();
    actor.send(event);
    t.equal(stateOf(actor), 'finalizing', event.type);
    actor.stop();
  }
  const { actor, waiting } = machine({ attempt: 4 });
  waiting.invoke({ kind: 'gone' });
  await settled();
  t.match(waiting.verdicts, [{ kind: 'failed', error: { code: 'lost' } }], 'a job that is gone for good');
  actor.stop();
});

t.test('what closing an attempt comes to decides where the life goes on', async (t) => {
  const outcomes: [Closed, ProposalState][] = [
    [{ kind: 'next', attempt: 2, jobId: 'job-2' }, 'invoking'],
    [{ kind: 'cancelled' }, 'finalizing'],
    [{ kind: 'finished', status: 'completed' }, 'completed'],
    [{ kind: 'finished', status: 'failed' }, 'failed'],
    [{ kind: 'finished', status: 'resolved' }, 'resolved'],
    [{ kind: 'lost' }, 'following'],
  ];
  for (const [closed, expected] of outcomes) {
    const { actor, waiting } = await machineIn('retrying');
    waiting.close(closed);
    await settled();
    t.equal(stateOf(actor), expected, JSON.stringify(closed));
    if (closed.kind === 'next') t.match(actor.getSnapshot().context, { attempt: 2, jobId: 'job-2' });
    actor.stop();
  }
});

t.test('what a commit of the end comes to decides the state', async (t) => {
  const outcomes: [Settled, ProposalState][] = [
    [{ kind: 'committed', status: 'completed' }, 'completed'],
    [{ kind: 'committed', status: 'failed' }, 'failed'],
    [{ kind: 'finished', status: 'resolved' }, 'resolved'],
    [{ kind: 'lost' }, 'following'],
    [{ kind: 'withdrawn' }, 'invoking'],
  ];
  for (const [outcome, expected] of outcomes) {
    const { actor, waiting } = await machineIn('finalizing');
    waiting.settle(outcome);
    await settled();
    t.equal(stateOf(actor), expected, JSON.stringify(outcome));
    actor.stop();
  }
});

t.test(
  'a cancel that was committed first turns a completion into a failure, in the epoch of the run',
  async (t) => {
    const { actor, waiting } = await machineIn('streaming');
    actor.send(events['runtime.ended']);
    waiting.settle({ kind: 'cancelled' });
    await settled();
    t.equal(stateOf(actor), 'finalizing');
    t.match(waiting.verdicts, [
      { kind: 'completed' },
      { kind: 'failed', error: { code: 'cancelled' }, byRuntime: true },
    ]);
    waiting.settle({ kind: 'committed', status: 'failed' });
    await settled();
    t.equal(stateOf(actor), 'failed');
    actor.stop();
  },
);

t.test('however a cancelled run ends, it was cancelled', async (t) => {
  for (const event of [
    events['runtime.ended'],
    events['runtime.failed, worth another attempt'],
    events['runtime.unknown'],
    events['deadline.passed'],
  ]) {
    const { actor, waiting } = await machineIn('cancelling');
    actor.send(event);
    t.match(waiting.verdicts, [{ kind: 'failed', error: { code: 'cancelled' } }], event.type);
    actor.stop();
  }
});

t.test('a life that was cancelled while nobody owned it ends as cancelled', async (t) => {
  const { actor, waiting } = machine({ cancelled: true });
  t.equal(stateOf(actor), 'finalizing');
  t.match(waiting.verdicts, [{ kind: 'failed', error: { code: 'cancelled' } }]);
  actor.stop();
});

t.test('a reader that knew of the cancel ends the life as cancelled when it becomes the owner', async (t) => {
  const { actor, waiting } = machine({ role: 'reader', cancelled: true });
  t.equal(stateOf(actor), 'following');
  actor.send(events['row.gained']);
  t.equal(stateOf(actor), 'finalizing');
  t.match(actor.getSnapshot().context, { attempt: 2, jobId: 'job-2' });
  t.match(waiting.verdicts, [{ kind: 'failed', error: { code: 'cancelled' } }]);
  actor.stop();
});

t.test('a run that ran out of time says why', async (t) => {
  for (const [state, kind, code] of [
    ['invoking', 'overdue', 'runtime_unavailable'],
    ['streaming', 'overdue', 'deadline_exceeded'],
    ['reconnecting', 'overdue', 'runtime_unavailable'],
    ['retrying', 'failed', 'runtime_unavailable'],
  ] as const) {
    const { actor, waiting } = await machineIn(state);
    actor.send(events['deadline.passed']);
    t.match(waiting.verdicts, [{ kind, error: { code } }], state);
    actor.stop();
  }
});

t.test(
  'a thread that brought down replica after replica is failed without being run again (rule 13)',
  async (t) => {
    const made = machine({ poisoned: true });
    const gained = machine({ role: 'reader', poisoned: true });
    t.equal(stateOf(gained.actor), 'following', 'a reader judges nothing');
    gained.actor.send(events['row.gained, poisoned']);
    for (const { actor, waiting } of [made, gained]) {
      t.equal(stateOf(actor), 'finalizing');
      t.match(waiting.verdicts, [{ kind: 'failed', error: { code: 'poisoned', retryable: false } }]);
      actor.stop();
    }
  },
);

t.test('some failures are never tried again, whatever the runtime says of them', async (t) => {
  for (const code of [
    'cancelled',
    'completed_without_files',
    'oversized',
    'invalid_frame',
    'runtime_rejected',
  ]) {
    t.notOk(isRetryable({ code, message: '', retryable: true }), code);
  }
  t.ok(isRetryable({ code: 'model_error', message: '', retryable: true }));
  t.notOk(isRetryable({ code: 'model_error', message: '', retryable: false }));
});

t.test('an error without words or `retryable` is tried again', async (t) => {
  const { actor } = await machineIn('streaming');
  actor.send({ type: 'runtime.failed', ending, error: {} });
  t.equal(stateOf(actor), 'retrying');
  t.match(actor.getSnapshot().context.failure, { code: 'runtime_error', retryable: true });
  actor.stop();
});
