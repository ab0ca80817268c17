import { Subject } from 'rxjs';
import t from 'tap';
import { createActor } from 'xstate';
import { createProposalLives, type ProposalLives } from '../../src/actors/proposal-actors.js';
import type { JournalOutcome } from '../../src/actors/transition-journal.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import type { LifecycleFact } from '../../src/streams/stream-signals.js';

const turns = () => new Promise((resolve) => setImmediate(resolve));
const failed: LifecycleFact = {
  type: 'runtime.failed',
  ending: { errorNumber: 1, errorBytes: null, error: null, endNumber: 2, state: null },
  error: { code: 'model_error', message: 'No.', retryable: true },
};

/** A life whose run has failed, and whose commit of the next attempt waits for its answer. */
async function retrying() {
  const lives = createProposalLives();
  const facts = new Subject<LifecycleFact>();
  const begun: number[] = [];
  const read: number[] = [];
  const current = { attempt: 1, jobId: 'job-1' };
  let answer: (outcome: JournalOutcome) => void = () => undefined;
  let mayGoOn: (row: ThreadRow) => boolean = () => true;
  const parts = {
    client: { invoke: async () => ({ kind: 'started', threadId: 'run' }) },
    input: { agent_definition: {}, input_payload: { messages: [] } },
    current,
    ownership: {
      journal: {
        append: (_: unknown, goOn: typeof mayGoOn) =>
          new Promise<JournalOutcome>((resolve) => {
            mayGoOn = goOn;
            answer = resolve;
          }),
      },
      notes: { from: () => 'streaming', retrying: () => undefined },
      settle: () => new Promise(() => undefined),
    },
    pipeline: {
      read(run: { attempt: number }) {
        read.push(run.attempt);
        return facts;
      },
      beginAttempt: (attempt: number) => begun.push(attempt),
    },
    awaited: () => false,
    newId: () => 'job-2',
    onFact: () => undefined,
    onCleanUpDue: () => undefined,
    retryDelayMs: () => 0,
    sleep: () => new Promise(() => undefined),
  };
  lives.enter('t', parts as unknown as Parameters<ProposalLives['enter']>[1]);
  const actor = createActor(lives.machine, {
    input: {
      proposalId: 'p',
      threadId: 't',
      attempt: 1,
      maxAttempts: 4,
      jobId: 'job-1',
      runtimeThreadId: null,
      role: 'owner',
      status: 'processing',
      awaited: false,
      cancelled: false,
      poisoned: false,
    },
  });
  actor.start();
  await turns();
  facts.next(failed);
  await turns();
  return {
    actor,
    begun,
    read,
    current,
    answer: (outcome: JournalOutcome) => answer(outcome),
    mayCommit: (cancelRequestedAt: string | null = null) => mayGoOn({ cancelRequestedAt } as ThreadRow),
  };
}

t.test('the next attempt is told when its commit is made', async (t) => {
  const { actor, begun, current, answer } = await retrying();
  t.equal(actor.getSnapshot().value, 'retrying');
  answer({ kind: 'committed' });
  await turns();
  t.strictSame(begun, [2]);
  t.match(current, { attempt: 2, jobId: 'job-2' });
  actor.stop();
});

t.test(
  'a reader is told of no attempt that it had opened as the owner: the row says so (rule 10)',
  async (t) => {
    const { actor, begun, read, current, answer } = await retrying();
    actor.send({ type: 'row.lost' });
    answer({ kind: 'committed' });
    await turns();
    t.strictSame(begun, [], 'its viewers still read the attempt before');
    t.strictSame(read, [1, 1]);
    t.match(current, { attempt: 2, jobId: 'job-2' });
    actor.stop();
  },
);

t.test('a retry is not committed once the time of the proposal is over, or it is cancelled', async (t) => {
  const { actor, begun, mayCommit, answer } = await retrying();
  t.strictSame([mayCommit(), mayCommit('now')], [true, false]);
  actor.send({ type: 'deadline.passed' });
  await turns();
  t.equal(actor.getSnapshot().value, 'finalizing');
  t.equal(mayCommit(), false, 'PostgreSQL was away until then');
  answer({ kind: 'moved', row: {} as ThreadRow });
  await turns();
  t.strictSame(begun, []);
  actor.stop();
});
