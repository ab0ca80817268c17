import type { ProposalEvent } from '../../src/actors/proposal-types.js';
import { forgetTwin, leaveBehind } from './database.js';
import type { Lives, Started } from './lives.js';
import type { Rules } from './rules.js';
import { hasFinished, tellBegun, tellEnd } from './viewers.js';
import { type Commit, epochOf, jobOf, type Replica, type Side, type World } from './world.js';

/** What a step needs beside the world. */
export interface Laws {
  lives: Lives;
  rules: Rules;
}

const error = { code: 'x', message: 'x', retryable: true };
export const ending = { errorNumber: 0, errorBytes: null, error: null, endNumber: 0, state: null };
export const runFailed: ProposalEvent = { type: 'runtime.failed', ending, error };

export const stateOf = ({ lives }: Laws, replica: Replica) =>
  replica.machine < 0 ? null : lives.state(replica.machine);

/** `thread-registry.ts` makes the thread's actor from the row as it is. */
export function openActor(laws: Laws, world: World, side: Side): void {
  const { row } = world;
  const replica = world.replicas[side];
  const { up, notice } = replica;
  Object.assign(replica, {
    up,
    notice,
    attempt: row.attempt,
    fresh: true,
    ours: true,
    seen: true,
    statement: null,
    queued: null,
    epoch: row.last?.epoch ?? epochOf(row.attempt, 1),
    released: 0,
    finished: false,
    reads: 0,
    log: 0,
    connection: 'none',
  });
  const role = row.status === 'processing' && row.owner !== side ? 'reader' : 'owner';
  const move = laws.lives.begin({ attempt: row.attempt, role, status: row.status, cancelled: row.cancel });
  replica.machine = move.to;
  startAll(laws, world, side, move.started);
}

/** The actor goes, for whatever reason: what it has sent to PostgreSQL may still arrive. */
export function dropActor(world: World, side: Side): void {
  leaveBehind(world, side, false);
  forgetTwin(world, side);
  Object.assign(world.replicas[side], {
    machine: -1,
    attempt: 1,
    fresh: false,
    ours: false,
    seen: false,
    statement: null,
    queued: null,
    epoch: 0,
    released: 0,
    finished: false,
    reads: 0,
    log: 0,
    connection: 'none',
  });
  for (const viewer of world.viewers) if (viewer.at === side) viewer.at = null;
}

/** The actor's machine hears something; what it then invokes begins. */
export function hear(laws: Laws, world: World, side: Side, event: ProposalEvent): void {
  const replica = world.replicas[side];
  go(laws, world, side, laws.lives.hear(replica.machine, event));
}

export function go(
  laws: Laws,
  world: World,
  side: Side,
  move: { to: number; started: readonly Started[] },
): void {
  const replica = world.replicas[side];
  const before = stateOf(laws, replica);
  replica.machine = move.to;
  const now = stateOf(laws, replica);
  const reading = (state: typeof now) =>
    state === 'streaming' || state === 'reconnecting' || state === 'cancelling';
  // Whatever read for the state before was unsubscribed.
  if (now !== before && !(reading(now) && reading(before))) replica.connection = 'none';
  const { statement } = replica;
  if (now !== before && statement !== null) statement.awaited = false;
  // A look that came while this replica was the owner, or thought so, was no reader's.
  if (now === 'following' && before !== 'following') replica.seen = false;
  startAll(laws, world, side, move.started);
  // The end that another one, or our own commit without an answer, has written.
  if ((now === 'completed' || now === 'failed' || now === 'resolved') && !replica.finished)
    tellEnd(world, side);
}

function startAll(laws: Laws, world: World, side: Side, started: readonly Started[]): void {
  const replica = world.replicas[side];
  for (const { src, verdict } of started) {
    if (src === 'readRun' || src === 'followRun') beginReading(laws, replica);
    if (src === 'closeAttempt') append(replica, { kind: 'retry', attempt: replica.attempt, last: null });
    if (src !== 'settleRun' || verdict === null) continue;
    const { attempt, epoch, released } = replica;
    if (verdict.kind === 'completed') {
      append(replica, { kind: 'completed', attempt, last: { epoch, number: released + 1 } });
    } else {
      const goesOn = verdict.kind === 'failed' && verdict.byRuntime;
      const last = goesOn
        ? { epoch, number: released + 2 }
        : // The newest state as 1, where there is one, error, end.
          { epoch: epochOf(attempt, 0), number: released > 0 ? 3 : 2 };
      append(replica, { kind: 'failed', attempt, last });
    }
  }
  if (hasFinished(laws.lives, replica) && !replica.finished) tellEnd(world, side);
}

/** `numberingOf` of the pipeline: the same attempt is read on where its viewers stand. */
function beginReading({ lives }: Laws, replica: Replica): void {
  replica.connection = 'none';
  const attempt = lives.attempt(replica.machine);
  if (replica.reads === attempt) return;
  replica.reads = attempt;
  replica.log = 0;
}

/** The journal: one commit after another. */
function append(replica: Replica, commit: Commit): void {
  if (replica.statement !== null) replica.queued = commit;
  else {
    const { fresh, ours } = replica;
    replica.statement = { commit, fresh, ours, made: false, state: 'sent', awaited: true };
  }
}

/** `beginAttempt` of the pipeline. */
function beginAttempt(world: World, side: Side, attempt: number): void {
  const replica = world.replicas[side];
  replica.epoch = epochOf(attempt, 1);
  replica.released = 0;
  replica.log = 0;
  replica.connection = 'none';
  tellBegun(world, side);
}

/** `observe` of the thread's actor: the row as it was just read. */
export function observe(laws: Laws, world: World, side: Side): void {
  const { lives } = laws;
  const { row } = world;
  const replica = world.replicas[side];
  replica.seen = true;
  if (row.status !== 'processing')
    return hear(laws, world, side, { type: 'row.finished', status: row.status });
  const { attempt } = row;
  const position = { attempt, jobId: `job-${attempt}`, runtimeThreadId: null };
  const named = row.owner === side;
  if (stateOf(laws, replica) === 'following') {
    const advanced = attempt !== lives.attempt(replica.machine);
    replica.attempt = attempt;
    if (advanced) beginAttempt(world, side, attempt);
    if (named) {
      replica.fresh = true;
      replica.ours = true;
      hear(laws, world, side, { type: 'row.gained', ...position, poisoned: false });
    } else if (advanced) hear(laws, world, side, { type: 'row.advanced', ...position });
  } else if (!named || !replica.ours) hear(laws, world, side, { type: 'row.lost' });
  if (named && row.cancel && !lives.cancelled(replica.machine))
    hear(laws, world, side, { type: 'cancel.requested' });
}

/** The outcome of the journal's statement is certain: whoever waited for it goes on, and the next one is sent. */
export function resolve(
  laws: Laws,
  world: World,
  side: Side,
  outcome: 'committed' | 'moved' | 'lost' | 'finished',
): void {
  const { lives } = laws;
  const replica = world.replicas[side];
  const { statement, queued } = replica;
  if (statement === null) return;
  const { commit, fresh, awaited } = statement;
  forgetTwin(world, side);
  replica.statement = null;
  replica.queued = null;
  if (outcome === 'committed') replica.fresh = fresh;
  if (queued !== null) append(replica, queued);
  const { status } = world.row;
  if (commit.kind === 'retry') {
    const next = { attempt: commit.attempt + 1, jobId: `job-${commit.attempt + 1}` };
    if (outcome === 'committed') replica.attempt = next.attempt;
    if (!awaited) return;
    if (outcome === 'committed') beginAttempt(world, side, next.attempt);
    const output =
      outcome === 'committed'
        ? ({ kind: 'next', ...next } as const)
        : outcome === 'moved'
          ? ({ kind: 'cancelled' } as const)
          : outcome === 'finished'
            ? ({ kind: 'finished', status } as const)
            : ({ kind: 'lost' } as const);
    return go(laws, world, side, lives.answer(replica.machine, { of: 'retrying', output }));
  }
  if (outcome === 'committed') tellEnd(world, side);
  if (!awaited) return;
  const output =
    outcome === 'committed'
      ? ({ kind: 'committed', status: commit.kind } as const)
      : outcome === 'moved'
        ? ({ kind: 'cancelled' } as const)
        : outcome === 'finished'
          ? ({ kind: 'finished', status } as const)
          : ({ kind: 'lost' } as const);
  go(laws, world, side, lives.answer(replica.machine, { of: 'finalizing', output }));
}

/** The run that this replica is to read, if it is to read one. */
export function runToRead(laws: Laws, world: World, side: Side) {
  const replica = world.replicas[side];
  const state = stateOf(laws, replica);
  const owns = state === 'streaming' || state === 'reconnecting' || state === 'cancelling';
  if ((!owns && state !== 'following') || replica.connection === 'over') return null;
  return { owns, job: jobOf(world, laws.lives.attempt(replica.machine)) };
}
