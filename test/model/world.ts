/** One of two replicas; the viewer that began there has the same number. */
export type Side = 0 | 1;
export const sides: readonly Side[] = [0, 1];

/** Whom the row names: a replica, nobody, or a process that is gone for ever (its node id never comes back). */
type Owner = Side | 'nobody' | 'ghost';

/** The stored end: the epoch of the last frames and the number of our `end`. */
interface LastFrames {
  epoch: number;
  number: number;
}

interface Row {
  status: 'processing' | 'completed' | 'failed' | 'resolved';
  attempt: number;
  owner: Owner;
  cancel: boolean;
  /** Attempts whose clean-up stands in the outbox, and those that are confirmed: one bit each. */
  ordered: number;
  cleaned: number;
  last: LastFrames | null;
}

/** One job in the runtime, with the log of its run. */
export interface Job {
  state: 'unknown' | 'running' | 'completed' | 'failed' | 'gone';
  /** The run's epoch, and how many frames its log has before `error` and `end`. */
  log: number;
  frames: number;
  /** An invoke that nobody waits for any more is still on its way. */
  late: boolean;
}

export interface Commit {
  kind: 'retry' | 'completed' | 'failed';
  attempt: number;
  last: LastFrames | null;
}

/** A fenced statement. Versions and generations only grow, so all that counts is whether they are those of the row. */
export interface Statement {
  commit: Commit;
  /** Its version is the row's: the one that it names, or once it is made the one that it gave. */
  fresh: boolean;
  /** Its generation is the row's. */
  ours: boolean;
  made: boolean;
  state: 'sent' | 'unknown';
  /** The machine still waits for the outcome. */
  awaited: boolean;
}

/** A statement whose sender has stopped waiting; `twin`: the sender still may send it again, under the same id. */
interface Straggler extends Statement {
  twin: Side | null;
}

export interface Replica {
  /** False while the process is stopped (SIGSTOP). */
  up: boolean;
  /** The machine's snapshot, or -1 where the thread has no actor here. */
  machine: number;
  /** `current.attempt` of the thread's actor. */
  attempt: number;
  /** Whether the journal's version, its generation, and the version of the last look are the row's. */
  fresh: boolean;
  ours: boolean;
  seen: boolean;
  statement: Statement | null;
  /** Waits for the statement before it. */
  queued: Commit | null;
  /** The fan-out: the epoch that viewers are served, and the last number in it. */
  epoch: number;
  released: number;
  finished: boolean;
  /** The numbering: attempt and log that it has heard of; 0 = none. */
  reads: number;
  log: number;
  /** `over`: the run's end was read. */
  connection: 'none' | 'open' | 'over';
  /** A notice of the row is on its way here. Only of interest where nothing is below the notices. */
  notice: boolean;
}

export interface Viewer {
  at: Side | null;
  epoch: number;
  position: number;
  ended: boolean;
}

export interface World {
  row: Row;
  /** By attempt, from 1. */
  jobs: [Job, Job];
  replicas: [Replica, Replica];
  viewers: [Viewer, Viewer];
  straggler: Straggler | null;
}

/** A rule of the design was broken; the explorer adds how the world came there. */
export class Breach extends Error {}

export const maxAttempts = 2;
/** Frames of a run before its end. */
export const framesOfRun = 1;

/** Epochs as numbers: `<attempt>.<log>`, log 0 for `<attempt>.closed`. */
export const epochOf = (attempt: number, log: number): number => attempt * 10 + log;

export const bit = (attempt: number): number => 1 << attempt;

export const jobOf = (world: World, attempt: number): Job => {
  const job = world.jobs[attempt - 1];
  if (job === undefined) throw new Error(`there is no attempt ${attempt}`);
  return job;
};

export function firstWorld(): World {
  const job = (): Job => ({ state: 'unknown', log: 1, frames: 0, late: false });
  const replica = (): Replica => ({
    up: true,
    machine: -1,
    attempt: 1,
    fresh: false,
    ours: false,
    seen: false,
    statement: null,
    queued: null,
    epoch: epochOf(1, 1),
    released: 0,
    finished: false,
    reads: 0,
    log: 0,
    connection: 'none',
    notice: false,
  });
  const viewer = (at: Side): Viewer => ({ at, epoch: epochOf(1, 1), position: 0, ended: false });
  return {
    row: { status: 'processing', attempt: 1, owner: 0, cancel: false, ordered: 0, cleaned: 0, last: null },
    jobs: [job(), job()],
    replicas: [replica(), replica()],
    viewers: [viewer(0), viewer(1)],
    straggler: null,
  };
}

const owners: readonly Owner[] = [0, 1, 'nobody', 'ghost'];
const connections: readonly Replica['connection'][] = ['none', 'open', 'over'];
const jobStates: readonly Job['state'][] = ['unknown', 'running', 'completed', 'failed', 'gone'];
const statuses: readonly Row['status'][] = ['processing', 'completed', 'failed', 'resolved'];
const commitKinds: readonly Commit['kind'][] = ['retry', 'completed', 'failed'];

const flags = (a: boolean, b: boolean, c = false, d = false, e = false, f = false): number =>
  +a + 2 * +b + 4 * +c + 8 * +d + 16 * +e + 32 * +f;
const flag = (code: number, at: number): boolean => (code & (1 << at)) !== 0;

/** Keys are put together here: a string that is joined of pieces is slow to compare. */
const scratch = Buffer.alloc(128);
let length = 0;
const put = (code: number): void => {
  scratch[length++] = code;
};

function putCommit(commit: Commit | null): void {
  if (commit === null) return put(0);
  put(commitKinds.indexOf(commit.kind) + 1);
  put(commit.attempt);
  put(commit.last?.epoch ?? 0);
  put(commit.last?.number ?? 0);
}

function putStatement(statement: Statement | null): void {
  putCommit(statement?.commit ?? null);
  if (statement === null) return;
  const { fresh, ours, made, state, awaited } = statement;
  put(flags(fresh, ours, made, state === 'sent', awaited));
}

function putReplica(one: Replica): void {
  put(one.machine + 1);
  put(one.attempt);
  put(flags(one.up, one.fresh, one.ours, one.seen, one.finished, one.notice));
  put(one.epoch);
  put(one.released);
  put(one.reads);
  put(one.log + 8 * connections.indexOf(one.connection));
  putStatement(one.statement);
  putCommit(one.queued);
}

/** All of a world in a short text; {@link worldOf} reads it. A world that waits for its turn is kept so. */
export function keyOf({ row, jobs, replicas, viewers, straggler }: World): string {
  length = 0;
  put(statuses.indexOf(row.status) + (row.cancel ? 8 : 0));
  put(row.attempt);
  put(owners.indexOf(row.owner));
  put(row.ordered);
  put(row.cleaned);
  put(row.last?.epoch ?? 0);
  put(row.last?.number ?? 0);
  for (const job of jobs) {
    put(jobStates.indexOf(job.state) + (job.late ? 8 : 0));
    put(job.log);
    put(job.frames);
  }
  for (const one of replicas) putReplica(one);
  for (const one of viewers) {
    put((one.at === null ? 2 : one.at) + (one.ended ? 4 : 0));
    put(one.epoch);
    put(one.position);
  }
  putStatement(straggler);
  if (straggler !== null) put(straggler.twin === null ? 2 : straggler.twin);
  return scratch.toString('latin1', 0, length);
}

/** The world that a key was made of. */
export function worldOf(key: string): World {
  let at = 0;
  const next = () => key.charCodeAt(at++);
  const lastFrames = (): LastFrames | null => {
    const epoch = next();
    const number = next();
    return epoch === 0 ? null : { epoch, number };
  };
  const commit = (): Commit | null => {
    const kind = next();
    return kind === 0
      ? null
      : { kind: commitKinds[kind - 1] as Commit['kind'], attempt: next(), last: lastFrames() };
  };
  const statement = (): Statement | null => {
    const made = commit();
    if (made === null) return null;
    const set = next();
    return {
      commit: made,
      fresh: flag(set, 0),
      ours: flag(set, 1),
      made: flag(set, 2),
      state: flag(set, 3) ? 'sent' : 'unknown',
      awaited: flag(set, 4),
    };
  };
  const row = (): Row => {
    const status = next();
    return {
      status: statuses[status & 7] as Row['status'],
      cancel: flag(status, 3),
      attempt: next(),
      owner: owners[next()] as Owner,
      ordered: next(),
      cleaned: next(),
      last: lastFrames(),
    };
  };
  const job = (): Job => {
    const state = next();
    return {
      state: jobStates[state & 7] as Job['state'],
      late: flag(state, 3),
      log: next(),
      frames: next(),
    };
  };
  const replica = (): Replica => {
    const machine = next() - 1;
    const attempt = next();
    const set = next();
    const epoch = next();
    const released = next();
    const reads = next();
    const log = next();
    return {
      up: flag(set, 0),
      machine,
      attempt,
      fresh: flag(set, 1),
      ours: flag(set, 2),
      seen: flag(set, 3),
      statement: statement(),
      queued: commit(),
      epoch,
      released,
      finished: flag(set, 4),
      reads,
      log: log & 7,
      connection: connections[log >> 3] as Replica['connection'],
      notice: flag(set, 5),
    };
  };
  const viewer = (): Viewer => {
    const place = next();
    const side = place & 3;
    return {
      at: side === 2 ? null : (side as Side),
      ended: flag(place, 2),
      epoch: next(),
      position: next(),
    };
  };
  const straggler = (): Straggler | null => {
    const sent = statement();
    if (sent === null) return null;
    const twin = next();
    return Object.assign(sent, { twin: twin === 2 ? null : (twin as Side) });
  };
  return {
    row: row(),
    jobs: [job(), job()],
    replicas: [replica(), replica()],
    viewers: [viewer(), viewer()],
    straggler: straggler(),
  };
}
