import {
  forgetHarmless,
  leaveBehind,
  orderCleanUps,
  runStatement,
  runStraggler,
  takeRow,
  wroteRow,
} from './database.js';
import { isFoundDead } from './deaths.js';
import {
  dropActor,
  ending,
  go,
  hear,
  type Laws,
  observe,
  openActor,
  resolve,
  runFailed,
  runToRead,
  stateOf,
} from './replica.js';
import type { Rules } from './rules.js';
import { canEnd, canSpeak, cleanUp, hasMore, invoke, isEarlierOpen, killRuntime, speak } from './runtime.js';
import { canJoin, join, release, tellBegun, tellRuntimesEnd } from './viewers.js';
import { bit, epochOf, jobOf, type Side, sides, type World } from './world.js';

/** Something that may happen: `take` changes the world that it is given. */
export interface Step {
  name: string;
  can(world: World): boolean;
  take(world: World): void;
}

const attempts = [1, 2] as const;

/** What goes on by itself, in any order, and always goes on in the end. */
export function freeSteps(laws: Laws): Step[] {
  const { lives, rules } = laws;
  const ofSide = (side: Side): Step[] => {
    const me = (world: World) => world.replicas[side];
    const state = (world: World) => (me(world).up ? stateOf(laws, me(world)) : null);
    return [
      {
        name: 'goes on after its stop',
        can: (world) => !me(world).up,
        take(world) {
          me(world).up = true;
        },
      },
      {
        name: 'hears the answer of its commit',
        can: (world) => me(world).up && me(world).statement?.state === 'sent',
        take(world) {
          const { statement } = me(world);
          if (statement === null) return;
          const outcome = runStatement(world, statement, rules);
          if (outcome === 'made') resolve(laws, world, side, 'committed');
          // What PostgreSQL refuses breaks the actor, which is revived from its row.
          else if (outcome === 'refused') dropActor(world, side);
          else statement.state = 'unknown';
        },
      },
      {
        name: 'has its commit made while it stands still',
        can: (world) => !me(world).up && me(world).statement?.state === 'sent',
        take(world) {
          const { statement } = me(world);
          if (statement === null) return;
          runStatement(world, statement, rules);
          statement.state = 'unknown';
        },
      },
      {
        name: 'looks its commit up',
        can: (world) => me(world).up && me(world).statement?.state === 'unknown',
        take(world) {
          const { statement } = me(world);
          const { row } = world;
          if (statement === null) return;
          if (!rules.lookUp) {
            statement.state = 'sent';
            statement.made = false;
            return;
          }
          if (statement.made) return resolve(laws, world, side, 'committed');
          if (row.status !== 'processing') return resolve(laws, world, side, 'finished');
          const ours = rules.decidedAnew ? statement.ours : me(world).ours;
          if (rules.generation && (!ours || row.owner !== side)) return resolve(laws, world, side, 'lost');
          me(world).fresh = true;
          if (statement.commit.kind !== 'failed' && row.cancel) return resolve(laws, world, side, 'moved');
          Object.assign(statement, { state: 'sent', fresh: true, ours });
        },
      },
      {
        name: 'reads the row',
        can: (world) =>
          state(world) !== null && !me(world).fresh && !me(world).seen && (rules.reread || me(world).notice),
        take(world) {
          me(world).notice = false;
          observe(laws, world, side);
        },
      },
      {
        name: 'revives its own row',
        can: ({ row, ...world }) =>
          rules.revival &&
          world.replicas[side].up &&
          row.status === 'processing' &&
          row.owner === side &&
          (world.replicas[side].machine < 0 || stateOf(laws, world.replicas[side]) === 'following'),
        take(world) {
          if (me(world).machine < 0) openActor(laws, world, side);
          else observe(laws, world, side);
        },
      },
      {
        name: 'takes the thread over',
        can: (world) => canTakeOver(world, side) && (rules.takeOver || world.row.owner === 'nobody'),
        take(world) {
          takeRow(world, side);
          if (me(world).machine < 0) openActor(laws, world, side);
          else if (stateOf(laws, me(world)) === 'following') observe(laws, world, side);
        },
      },
      {
        name: 'invokes its job',
        can: (world) =>
          state(world) === 'invoking' &&
          (!rules.cleanUpFirst || !isEarlierOpen(world, lives.attempt(me(world).machine))),
        take(world) {
          const { machine } = me(world);
          const attempt = lives.attempt(machine);
          const runtimeThreadId = `job-${attempt}`;
          const kind = invoke(world, attempt);
          const output = kind === 'gone' ? ({ kind } as const) : ({ kind, runtimeThreadId } as const);
          go(laws, world, side, lives.answer(machine, { of: 'invoking', output }));
        },
      },
      {
        name: 'asks the runtime to cancel',
        can: (world) =>
          state(world) === 'cancelling' && jobOf(world, lives.attempt(me(world).machine)).state === 'running',
        take(world) {
          jobOf(world, lives.attempt(me(world).machine)).state = 'failed';
        },
      },
      {
        name: 'waits no longer for a cancelled run',
        can: (world) => state(world) === 'cancelling',
        take(world) {
          const answer = { of: 'live.cancelling', output: undefined } as const;
          go(laws, world, side, lives.answer(me(world).machine, answer));
        },
      },
      {
        name: 'reads the run',
        can(world) {
          const run = me(world).up ? runToRead(laws, world, side) : null;
          if (run === null) return false;
          const { connection, log, released } = me(world);
          if (run.job.state === 'unknown' || run.job.state === 'gone')
            return run.owns || connection === 'open';
          return connection === 'none' || log !== run.job.log || hasMore(run.job, released);
        },
        take: (world) => readRun(laws, world, side),
      },
    ];
  };
  const all: Step[] = [
    ...sides.flatMap((side) => named(side, ofSide(side))),
    ...sides.flatMap((at) => sides.map((side) => joining(laws, at, side))),
    ...attempts.flatMap((attempt): Step[] => [
      {
        name: `run ${attempt} speaks`,
        can: (world) => canSpeak(jobOf(world, attempt)),
        take: (world) => speak(jobOf(world, attempt)),
      },
      {
        name: `run ${attempt} completes`,
        can: (world) => canEnd(jobOf(world, attempt)),
        take(world) {
          jobOf(world, attempt).state = 'completed';
        },
      },
      {
        name: `a late invoke of job ${attempt} arrives`,
        can: (world) => jobOf(world, attempt).late,
        take(world) {
          jobOf(world, attempt).late = false;
          invoke(world, attempt);
        },
      },
      {
        name: `the clean-up of job ${attempt} is confirmed`,
        can: ({ row }) => (row.ordered & bit(attempt)) !== 0,
        take: (world) => cleanUp(world, attempt, rules.tombstone),
      },
    ]),
    {
      name: 'a late statement is run',
      can: ({ straggler }) => straggler !== null,
      take: (world) => runStraggler(world, rules),
    },
  ];
  return tidied(all, rules);
}

/** Worlds that differ in nothing that matters are one. */
function tidied(steps: Step[], rules: Rules): Step[] {
  return steps.map((step) => ({
    ...step,
    take(world) {
      step.take(world);
      forgetHarmless(world, rules);
    },
  }));
}

function canTakeOver({ row, replicas }: World, side: Side): boolean {
  if (!replicas[side].up || row.status !== 'processing' || row.owner === side) return false;
  if (row.owner === 'nobody') return true;
  return isFoundDead({ beats: row.owner !== 'ghost' && replicas[row.owner].up });
}

/** One connection of the runtime's stream, as far as it reaches now. */
function readRun(laws: Laws, world: World, side: Side): void {
  const run = runToRead(laws, world, side);
  const replica = world.replicas[side];
  if (run === null) return;
  const { job, owns } = run;
  if (job.state === 'unknown' || job.state === 'gone') {
    replica.connection = 'none';
    if (owns) hear(laws, world, side, { type: 'runtime.unknown' });
    return;
  }
  const epoch = epochOf(replica.reads, job.log);
  if (replica.connection === 'none' || replica.log !== job.log) {
    if (owns && replica.connection === 'open') hear(laws, world, side, { type: 'runtime.lost' });
    replica.connection = 'open';
    replica.log = job.log;
    if (epoch !== replica.epoch && laws.rules.resetOnForeignEpoch) {
      replica.epoch = epoch;
      replica.released = 0;
      tellBegun(world, side);
    }
    if (owns)
      hear(laws, world, side, { type: 'runtime.opened', epoch: String(epoch), runtimeEpoch: job.log });
  }
  release(world, side, epoch, job.frames);
  if (job.state === 'running') return;
  replica.connection = 'over';
  if (owns) hear(laws, world, side, job.state === 'failed' ? runFailed : { type: 'runtime.ended', ending });
  else if (!laws.rules.readerJudgesNothing) tellRuntimesEnd(world, side);
}

/** A viewer without a socket comes to a replica, which opens the thread where it has none. */
function joining(laws: Laws, number: Side, side: Side): Step {
  return {
    name: `viewer ${number} comes to ${'AB'[side]}`,
    can({ viewers, replicas }) {
      const viewer = viewers[number];
      const replica = replicas[side];
      if (viewer.ended || viewer.at !== null || !replica.up) return false;
      return replica.machine < 0 || canJoin(replica, viewer);
    },
    take(world) {
      const replica = world.replicas[side];
      if (replica.machine < 0) openActor(laws, world, side);
      if (canJoin(replica, world.viewers[number])) join(world, world.viewers[number], side);
    },
  };
}

/** What goes wrong, or is wished, at any moment; histories are counted by how many of these they have. */
export function faults(laws: Laws): Step[] {
  const { lives, rules } = laws;
  const ofSide = (side: Side): Step[] => {
    const me = (world: World) => world.replicas[side];
    const isSending = (world: World) => me(world).up && me(world).statement?.state === 'sent';
    const isInvoking = (world: World) =>
      me(world).up &&
      stateOf(laws, me(world)) === 'invoking' &&
      (!rules.cleanUpFirst || !isEarlierOpen(world, lives.attempt(me(world).machine)));
    const all: Step[] = [
      {
        name: 'is killed and starts again',
        can: () => true,
        take(world) {
          dropActor(world, side);
          me(world).up = true;
          if (world.row.owner === side) world.row.owner = 'ghost';
        },
      },
      {
        name: 'is stopped',
        can: (world) => me(world).up,
        take(world) {
          me(world).up = false;
        },
      },
      {
        name: 'hands over and starts again',
        can: (world) => me(world).up && me(world).statement === null,
        take(world) {
          const { ours } = me(world);
          dropActor(world, side);
          if (world.row.owner !== side || !ours) return;
          world.row.owner = 'nobody';
          wroteRow(world);
        },
      },
      {
        name: 'has its actor broken',
        can: (world) => me(world).up && me(world).machine >= 0,
        take: (world) => dropActor(world, side),
      },
      {
        name: 'gets no answer to a commit that is made',
        can: isSending,
        take(world) {
          const { statement } = me(world);
          if (statement === null) return;
          runStatement(world, statement, rules);
          statement.state = 'unknown';
        },
      },
      {
        name: 'waits no longer for a commit that is late',
        can: (world) => isSending(world) && world.straggler === null,
        take(world) {
          leaveBehind(world, side, true);
          const { statement } = me(world);
          if (statement !== null) statement.state = 'unknown';
        },
      },
      {
        name: 'takes the thread over and does not hear of it',
        can: (world) => canTakeOver(world, side),
        take: (world) => takeRow(world, side),
      },
      {
        name: 'gets no answer to an invoke that arrived',
        can: isInvoking,
        take(world) {
          invoke(world, lives.attempt(me(world).machine));
        },
      },
      {
        name: 'gets no answer to an invoke that is late',
        can: (world) => isInvoking(world) && !jobOf(world, lives.attempt(me(world).machine)).late,
        take(world) {
          jobOf(world, lives.attempt(me(world).machine)).late = true;
        },
      },
      {
        name: 'hears nothing of its run for too long',
        can: (world) => me(world).up && stateOf(laws, me(world)) === 'streaming',
        take: (world) => hear(laws, world, side, { type: 'runtime.stalled' }),
      },
      {
        name: 'has its viewers cut off',
        can: ({ viewers }) => viewers.some(({ at }) => at === side),
        take({ viewers }) {
          for (const viewer of viewers) if (viewer.at === side) viewer.at = null;
        },
      },
      {
        name: 'loses a notice',
        can: (world) => !rules.reread && me(world).notice,
        take(world) {
          me(world).notice = false;
        },
      },
    ];
    return named(side, all);
  };
  const all: Step[] = [
    ...sides.flatMap(ofSide),
    {
      name: 'the runtime is killed and starts again',
      can: ({ jobs }) => jobs.some(({ state }) => state !== 'unknown' && state !== 'gone'),
      take: killRuntime,
    },
    ...attempts.map((attempt) => ({
      name: `run ${attempt} fails`,
      can: (world: World) => jobOf(world, attempt).state === 'running',
      take(world: World) {
        jobOf(world, attempt).state = 'failed';
      },
    })),
    {
      name: 'somebody cancels',
      can: ({ row }) => row.status === 'processing' && !row.cancel,
      take(world) {
        world.row.cancel = true;
        wroteRow(world);
      },
    },
    {
      name: 'somebody decides',
      can: ({ row }) => row.status === 'completed',
      take(world) {
        world.row.status = 'resolved';
        orderCleanUps(world);
        wroteRow(world);
      },
    },
  ];
  return tidied(all, rules);
}

const named = (side: Side, steps: Step[]): Step[] =>
  steps.map((step) => ({ ...step, name: `${'AB'[side]} ${step.name}` }));
