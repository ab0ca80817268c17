import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { createRowObserver, type RowObserverDeps } from '../../src/actors/observe-row.js';
import type { ProposalContext, ProposalEvent, ProposalState } from '../../src/actors/proposal-types.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';

const rowOf = (version: number, changes: Partial<ThreadRow> = {}) =>
  ({
    status: 'processing',
    attempt: 1,
    jobId: 'job-1',
    runtimeThreadId: null,
    ownerNode: 'me',
    ownerGeneration: 1,
    takenOver: 0,
    cancelRequestedAt: null,
    version,
    ...changes,
  }) as ThreadRow;

/** An observer whose machine stands where the test says. */
function bench(state: ProposalState, row = rowOf(1)) {
  const { version, ownerGeneration: generation, attempt } = row;
  const world = { state, version, generation, attempt, cancelled: false };
  const events: ProposalEvent[] = [];
  const adopted: number[] = [];
  const catchUps: ((first: boolean) => void)[] = [];
  const attempts: number[] = [];
  const deps = {
    node: 'me',
    maxAttempts: 4,
    ownership: {
      journal: { version: () => world.version, generation: () => world.generation },
      watchdog: { observe: () => undefined, attemptBegins: () => attempts.push(0) },
      adopt: ({ version }: ThreadRow) => adopted.push(version),
    },
    pipeline: { beginAttempt: (attempt: number) => attempts.push(attempt) },
    current: { attempt: row.attempt, jobId: row.jobId },
    state: () => world.state,
    context: () =>
      ({ runtimeThreadId: null, attempt: world.attempt, cancelled: world.cancelled }) as ProposalContext,
    send(event: ProposalEvent) {
      events.push(event);
      if ('attempt' in event) world.attempt = event.attempt;
    },
    stored: { caughtUp: () => new Promise<boolean>((resolve) => catchUps.push(resolve)) },
  } as unknown as RowObserverDeps;
  return { world, ...createRowObserver(deps, row), events, adopted, catchUps, attempts };
}

t.test('a row that is older than what was read or committed here says nothing (rule 2)', async (t) => {
  const owner = bench('streaming');
  owner.world.version = 5;
  owner.observe(rowOf(4, { ownerNode: null }));
  t.strictSame(owner.events, [], 'it was read before our own commit');
  owner.observe(rowOf(6, { ownerNode: 'other', ownerGeneration: 2 }));
  owner.observe(rowOf(5));
  t.strictSame(owner.events, [{ type: 'row.lost' }]);
  t.equal(owner.seen().version, 6);
  // Given up by a commit of ours, while the look at our own rows was under way.
  const given = bench('following');
  given.world.version = 3;
  given.observe(rowOf(2));
  t.strictSame([given.events, given.adopted], [[], []], 'it does not become the owner again');
});

t.test(
  'a reader that finds itself named becomes the owner, under the generation of the row (rule 2)',
  async (t) => {
    const reader = bench('following', rowOf(1, { ownerNode: 'other' }));
    reader.observe(rowOf(2, { ownerGeneration: 2, takenOver: 4, cancelRequestedAt: 'now' }));
    t.strictSame(reader.events, [
      { type: 'row.gained', attempt: 1, jobId: 'job-1', runtimeThreadId: null, poisoned: true },
      { type: 'cancel.requested' },
    ]);
    t.strictSame(reader.adopted, [2]);
  },
);

t.test(
  'a reader counts the idle time of each attempt that it hears of, and of no other (rule 14)',
  async (t) => {
    const reader = bench('following', rowOf(1, { ownerNode: 'other' }));
    reader.observe(rowOf(2, { ownerNode: 'other' }));
    t.strictSame(reader.attempts, []);
    reader.observe(rowOf(3, { ownerNode: 'other', attempt: 2, jobId: 'job-2' }));
    t.strictSame(reader.attempts, [0, 2]);
    reader.observe(rowOf(4, { ownerGeneration: 2, attempt: 2, jobId: 'job-2' }));
    t.strictSame(reader.attempts, [0, 2], 'as the owner it goes on with the attempt that it has heard');
  },
);

t.test('an owner whose generation is not the row’s is a reader, whoever is named (rule 9)', async (t) => {
  for (const changes of [{ ownerNode: 'other' }, { ownerNode: null }, { ownerGeneration: 2 }]) {
    const owner = bench('reconnecting');
    owner.observe(rowOf(2, changes));
    t.strictSame(owner.events, [{ type: 'row.lost' }]);
  }
});

t.test(
  'a row that has ended is told to an owner, and to a reader when it has caught up (rule 10)',
  async (t) => {
    const owner = bench('streaming');
    owner.observe(rowOf(2, { status: 'failed', ownerNode: null }));
    t.strictSame(owner.events, [{ type: 'row.finished', status: 'failed' }]);
    const reader = bench('following');
    reader.observe(rowOf(2, { status: 'completed', ownerNode: null }));
    reader.observe(rowOf(3, { status: 'resolved', ownerNode: null }));
    t.strictSame(reader.events, []);
    for (const [nth, caughtUp] of reader.catchUps.entries()) caughtUp(nth === 0);
    await turn();
    t.strictSame(reader.events, [{ type: 'row.finished', status: 'resolved' }], 'once, as the row is then');
  },
);
