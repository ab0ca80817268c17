import fc from 'fast-check';
import { test } from 'tap';
import { closedFrames, completedFrames, type EndingFacts } from '../../src/actors/last-frames.js';
import type { LastFrames } from '../../src/streams/released-log.js';
import type { ViewerPosition } from '../../src/streams/viewer.js';
import { createPipelineReplica, type PipelineReplica } from '../support/pipeline-replica.js';
import { createRuntimeLog } from '../support/runtime-log.js';
import { accountOf, type Released } from '../support/viewer-oracle.js';
import { createVirtualClock, settled, type VirtualClock } from '../support/virtual-clock.js';

type Arbitrary<A> = A extends fc.Arbitrary<infer T> ? T : never;

const side = fc.constantFrom(0 as const, 1 as const);
const who = fc.nat(3);
/** What every viewer must survive without a loss, however it falls together. */
const gentle = [
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('frames' as const),
      count: fc.integer({ min: 1, max: 5 }),
      size: fc.nat(60),
      state: fc.boolean(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('read' as const), side, count: fc.integer({ min: 1, max: 6 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('come' as const), who, side }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('leave' as const), who }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), side }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('time' as const), ms: fc.constantFrom(20, 60, 1_100, 6_000) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose log' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('turn' as const), side }) },
] as const;
const rough = [
  ...gentle,
  { weight: 3, arbitrary: fc.record({ do: fc.constant('restart' as const), side }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('time' as const), ms: fc.constant(6_000) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lose log' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), count: fc.nat(8) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('flood' as const),
      count: fc.integer({ min: 1, max: 6 }),
      size: fc.integer({ min: 4_000, max: 30_000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('valve' as const), who, open: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('take' as const),
      who,
      bytes: fc.integer({ max: 60_000, min: 100 }),
    }),
  },
] as const;
const gentleStep = fc.oneof(...gentle);
const roughStep = fc.oneof(...rough);
type Step = Arbitrary<typeof gentleStep> | Arbitrary<typeof roughStep>;

/** How the run ends, and what each replica has read of it when it hears of the commit. */
const ending = fc.record({
  kind: fc.constantFrom('completed', 'closed'),
  owner: side,
  late: fc.boolean(),
  restarts: fc.boolean(),
});
type Ending = Arbitrary<typeof ending>;

/** One connection of a person, with where it stood when it came. */
interface Socket extends ReturnType<PipelineReplica['join']> {
  after: number;
  epoch: string | null;
}

/** A person with one socket at a time, who comes back with the position that the last one left. */
interface Person {
  position: ViewerPosition;
  socket: Socket | null;
  ends: number;
}

interface History {
  clock: VirtualClock;
  fault: string | null;
}

/** Runs one history over two replicas of one log; what is wrong with the accounts of its viewers, or null. */
async function faultOf(steps: readonly Step[], end: Ending, isGentle: boolean): Promise<string | null> {
  const history: History = { clock: createVirtualClock(), fault: null };
  const { clock } = history;
  const log = createRuntimeLog();
  const released = new Map<string, Released>();
  let last: LastFrames | null = null;
  const options = { first: true, epoch: '1.1', last: null, viewerBudgetBytes: 8_000 };
  const replicas = [
    createPipelineReplica(log, clock, options),
    createPipelineReplica(log, clock, { ...options, first: false }),
  ] as [PipelineReplica, PipelineReplica];
  const people: Person[] = Array.from({ length: 4 }, () => ({ position: {}, socket: null, ends: 0 }));
  const personOf = (number: number) => people[number % people.length] as Person;

  const sentSoFar = () => {
    for (const [epoch, frames] of log.sent)
      released.set(`1.${epoch}`, { epoch: `1.${epoch}`, frames: new Map(frames), missing: new Set() });
    if (last === null) return;
    const made = released.get(last.epoch) ?? { epoch: last.epoch, frames: new Map(), missing: new Set() };
    for (const { number, bytes } of last.frames) made.frames.set(number, bytes.toString());
    released.set(last.epoch, made);
  };
  /** Reads what the person's socket was sent, and remembers where it stands. */
  const settle = (person: Person, index: number) => {
    const { socket } = person;
    if (socket === null) return;
    person.socket = null;
    sentSoFar();
    const account = accountOf(socket.viewer, released, socket.after, isGentle);
    person.ends += account.ends;
    const subscribed = socket.viewer.received[0]?.data;
    const judged = subscribed !== undefined && subscribed.recovery !== 'reset' && socket.epoch !== null;
    if (judged && subscribed.epoch !== socket.epoch)
      history.fault ??= `viewer ${index}: ${subscribed.recovery} from ${socket.epoch} in ${subscribed.epoch}`;
    if (account.fault !== null) history.fault ??= `viewer ${index}: ${account.fault}`;
    if (account.epoch !== '') person.position = { epoch: account.epoch, after: account.position };
  };
  const leave = async (person: Person) => {
    const { socket } = person;
    if (socket === null) return;
    (await Promise.race([socket.attachment, settled().then(() => null)]))?.detach();
    void socket.attachment.then((attachment) => attachment.detach());
    settle(person, people.indexOf(person));
  };
  const come = (person: Person, at: 0 | 1) => {
    if (person.socket !== null || person.ends > 0) return;
    const { viewer, attachment } = replicas[at].join(person.position);
    viewer.takesAll(true);
    person.socket = {
      viewer,
      attachment,
      after: person.position.after ?? 0,
      epoch: person.position.epoch ?? null,
    };
  };
  const drain = async (person: Person) => {
    const { socket } = person;
    if (socket !== null) (await Promise.race([socket.attachment, settled().then(() => null)]))?.drained();
  };
  const restart = (at: 0 | 1) => {
    replicas[at].stop();
    const epoch = last?.epoch ?? '1.1';
    replicas[at] = createPipelineReplica(log, clock, { ...options, first: false, epoch, last });
  };
  const speak = (count: number, size: number, state: boolean) => {
    for (let index = 0; index < count; index++) {
      const data = {
        content: `${log.epoch}.${log.last}`.padEnd(size, 'x'),
        node: 'n',
        message_id: `m${log.last >> 2}`,
      };
      if (state && index === 0) log.append('on_state_update', { files: {}, log: `${log.epoch}.${log.last}` });
      else log.append('on_llm_stream', data);
    }
  };

  const take = async (step: Step) => {
    if (step.do === 'frames') speak(step.count, step.size, step.state);
    else if (step.do === 'flood') speak(step.count, step.size, false);
    else if (step.do === 'read') replicas[step.side].connection()?.take(step.count);
    else if (step.do === 'come') come(personOf(step.who), step.side);
    else if (step.do === 'leave') await leave(personOf(step.who));
    else if (step.do === 'cut') replicas[step.side].connection()?.cut();
    else if (step.do === 'time') await clock.pass(step.ms);
    else if (step.do === 'lose log') log.loseLog();
    else if (step.do === 'turn') replicas[step.side].readAnew();
    else if (step.do === 'trim') log.trim(step.count);
    else if (step.do === 'restart') restart(step.side);
    else {
      const person = personOf(step.who);
      if (step.do === 'take') person.socket?.viewer.take(step.bytes);
      else person.socket?.viewer.takesAll(step.open);
      await drain(person);
    }
  };
  const readAll = async (at: 0 | 1, done: () => boolean) => {
    for (let turn = 0; turn < 400 && !done(); turn++) {
      await settled();
      if (replicas[at].connection()?.take(7) !== true) await clock.pass(60);
    }
    if (!done()) history.fault ??= 'a replica never read the end';
  };

  for (const step of steps) {
    await take(step);
    await settled();
    for (const [index, person] of people.entries()) if (person.socket?.viewer.closed) settle(person, index);
  }

  // The owner hears the end and makes the last frames, which both get, sooner or later.
  const owner = replicas[end.owner];
  if (end.kind === 'completed') {
    log.append('end', {});
    await readAll(end.owner, () => owner.ending() !== null);
  }
  const { fanOut, newestFiles } = owner.pipeline;
  const facts: EndingFacts = {
    proposalId: 'proposal',
    attempt: 1,
    status: end.kind === 'completed' ? 'completed' : 'failed',
    files: {},
    warnings: [],
    state: newestFiles.frame(),
    released: fanOut.lastReleased(),
    epoch: fanOut.epoch(),
  };
  const error = { code: 'stalled', message: 'The run stopped sending.', retryable: true };
  last = end.kind === 'completed' ? completedFrames(facts, owner.ending()) : closedFrames(facts, error);
  const reader = end.owner === 0 ? 1 : 0;
  // A reader goes on reading until it has what lies below the end, or has waited long enough.
  if (end.kind === 'completed' && (isGentle || !end.late))
    await readAll(reader, () => replicas[reader].ending() !== null);
  owner.finish(last);
  await settled();
  replicas[reader].finish(last);
  if (!isGentle && end.restarts) restart(reader);
  for (const person of people) person.socket?.viewer.takesAll(true);
  for (let round = 0; round < 4; round++) {
    for (const [index, person] of people.entries()) {
      come(person, ((index + round) % 2) as 0 | 1);
      for (let turn = 0; turn < 3; turn++) {
        await drain(person);
        await clock.pass(6_000);
      }
      if (person.socket?.viewer.closed) settle(person, index);
    }
  }

  for (const [index, person] of people.entries()) {
    if (person.socket !== null) history.fault ??= `viewer ${index} was not closed`;
    if (person.ends !== 1) history.fault ??= `viewer ${index} got ${person.ends} ends`;
  }
  for (const replica of replicas) replica.stop();
  return history.fault;
}

const check = async (step: fc.Arbitrary<Step>, isGentle: boolean, numRuns: number) => {
  let histories = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 50 }), ending, async (steps, end) => {
      histories++;
      const fault = await faultOf(steps, end, isGentle);
      if (fault !== null) throw new Error(fault);
    }),
    { numRuns },
  );
  return histories;
};

test('over two replicas, cut sockets and lost logs a viewer that comes and goes gets every frame of the epoch it is in, once (rules 9, 10)', async (t) => {
  t.ok((await check(gentleStep, true, 300)) >= 300);
});

test('over restarts, trimmed logs, floods and slow sockets every number comes once or is told, and one end (rules 10, 18)', async (t) => {
  t.ok((await check(roughStep, false, 300)) >= 300);
});
