import type { Rules } from './rules.js';
import { Breach, bit, maxAttempts, type Side, type Statement, type World } from './world.js';

/** The row was written: whoever knew its version knows an old one. */
export function wroteRow(world: World): void {
  for (const replica of world.replicas) {
    replica.fresh = false;
    replica.seen = false;
    replica.notice = true;
    if (replica.statement !== null) replica.statement.fresh = false;
  }
  if (world.straggler !== null) world.straggler.fresh = false;
}

/** Somebody else owns the row from now on: statements and journals of the owner before name an old generation. */
function raiseGeneration(world: World): void {
  for (const replica of world.replicas) {
    replica.ours = false;
    if (replica.statement !== null) replica.statement.ours = false;
  }
  if (world.straggler !== null) world.straggler.ours = false;
}

/** What `src/db/run-progress.ts` asks of the row. */
function passesFence({ row }: World, { commit, fresh, ours, made }: Statement, rules: Rules): boolean {
  if (made || row.status !== 'processing') return false;
  if ((rules.version && !fresh) || (rules.generation && !ours)) return false;
  return commit.kind !== 'completed' || !row.cancel;
}

/**
 * PostgreSQL runs a statement of a run's progress; nobody has heard of the outcome yet.
 *
 * @returns `refused` where the key of `attempts` is broken: an attempt is opened once
 */
export function runStatement(
  world: World,
  statement: Statement,
  rules: Rules,
): 'made' | 'untouched' | 'refused' {
  if (!passesFence(world, statement, rules)) return 'untouched';
  const { row } = world;
  const { commit } = statement;
  if (commit.kind === 'retry' && row.attempt !== commit.attempt) return 'refused';
  if (!statement.ours) throw new Breach(`a ${commit.kind} of a superseded generation was committed`);
  wroteRow(world);
  if (commit.kind === 'retry') {
    if (row.cancel) throw new Breach('an attempt was opened after the cancel');
    row.ordered |= bit(commit.attempt) & ~row.cleaned;
    row.attempt++;
    if (row.attempt > maxAttempts) throw new Breach('more attempts were opened than there are');
  } else {
    row.status = commit.kind;
    row.owner = 'nobody';
    row.last = commit.last;
    if (commit.kind === 'failed') orderCleanUps(world);
  }
  statement.made = true;
  statement.fresh = true;
  return 'made';
}

/** The outbox rows of everything that is not confirmed yet. */
export function orderCleanUps({ row }: World): void {
  for (let attempt = 1; attempt <= row.attempt; attempt++) row.ordered |= bit(attempt) & ~row.cleaned;
}

/** A statement whose sender has gone, or waits no longer, is run after all. Its twin, under the same id, then is made. */
export function runStraggler(world: World, rules: Rules): void {
  const { straggler } = world;
  if (straggler === null) return;
  world.straggler = null;
  runStatement(world, straggler, rules);
  const twin = straggler.twin === null ? null : world.replicas[straggler.twin].statement;
  if (!straggler.made || twin === null) return;
  twin.made = true;
  twin.fresh = true;
}

/** Whether a statement that is on its way can still do anything: else it is forgotten, and worlds are fewer. */
export function forgetHarmless(world: World, rules: Rules): void {
  const { straggler, replicas } = world;
  // With the look each second below them notices decide nothing: each may be lost, and not as a fault.
  if (rules.reread) for (const replica of replicas) replica.notice = false;
  if (straggler === null) return;
  const stale = (rules.version && !straggler.fresh) || (rules.generation && !straggler.ours);
  if (stale || world.row.status !== 'processing') world.straggler = null;
}

/** Of an owner that is gone, stopped, or gave the row up; `false` where there is nothing to take. */
export function takeRow(world: World, to: Side): void {
  raiseGeneration(world);
  world.row.owner = to;
  wroteRow(world);
}

/** The sender waits no longer for a statement that is not made yet. */
export function leaveBehind(world: World, side: Side, twin: boolean): void {
  const { statement } = world.replicas[side];
  if (statement === null || statement.made || statement.state !== 'sent') return;
  world.straggler = { ...statement, twin: twin ? side : null };
}

/** Nobody sends this statement again. */
export function forgetTwin(world: World, side: Side): void {
  if (world.straggler?.twin === side) world.straggler.twin = null;
}
