import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { test } from 'tap';
import type { AgentRunner } from '../../src/agent-runner.js';
import { isPassing } from '../../src/db/database-faults.js';
import type { RunStore, StartableRun } from '../../src/db/runs-store.js';
import { Problem, problemOf, toError } from '../../src/errors.js';
import { createStallWatch } from '../../src/http/stall-watch.js';
import { createEventLogStore } from '../../src/runs/event-log.js';
import { createIdleWatch } from '../../src/runs/idle-watch.js';
import { StoppedError, untilAnswered } from '../../src/runs/retry.js';
import { createRunIntake } from '../../src/runs/run-intake.js';
import { createRunQueue } from '../../src/runs/run-queue.js';
import type { RunSupervisor } from '../../src/runs/run-supervisor.js';
import { givenFiles } from '../../src/runs/whole-state.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { jobOf } from '../support/test-runtime.js';

test('An event log wakes its readers once per turn and holds what it numbered', async (t) => {
  const kinds: string[] = [];
  const store = createEventLogStore({ onEvent: (kind) => kinds.push(kind) }, 1_000_000);
  const log = store.begin('a', 3);
  let woken = 0;
  const detach = log.attach({ wake: () => woken++ });
  t.same([log.epoch, log.firstSeq, log.lastSeq, log.state], [3, 0, 0, 'open']);
  t.equal(log.append('on_llm_stream', { content: 'é"\n' }), 1);
  t.equal(log.appendJson('on_state_update', '{"files":{}}'), 2);
  t.equal(log.frame(1)?.toString(), '{"seq":1,"event_type":"on_llm_stream","data":{"content":"é\\"\\n"}}');
  t.equal(log.frame(3), undefined);
  t.equal(log.frame(0), undefined);
  await turn();
  t.equal(woken, 1);
  log.end();
  log.abandon();
  t.equal(log.state, 'ended', 'a log ends once');
  await turn();
  t.equal(woken, 2);
  detach();
  t.same(kinds, ['on_llm_stream', 'on_state_update']);
  const next = store.begin('a', 4);
  t.equal(store.get('a'), next);
  store.drop('nobody');
  const before = store.bytes;
  log.append('late', {});
  t.equal(store.bytes, before, 'what a log before it still says costs the budget nothing');
  store.drop('a');
  t.equal(next.state, 'abandoned');
  t.equal(store.bytes, 0);
});

test('The log budget never drops the newest event of a run', async (t) => {
  const store = createEventLogStore({ onEvent: () => {} }, 500);
  const log = store.begin('a', 1);
  for (let n = 1; n <= 50; n++) {
    log.append('x', { n: 'y'.repeat(1000) });
    t.ok(log.frame(log.lastSeq));
  }
  t.equal(log.lastSeq, 50);
  t.equal(log.firstSeq, 50);
});

test('A queue admits in order within both bounds', async (t) => {
  const queue = createRunQueue({ running: 2, starting: 1 });
  t.ok(queue.hasRoom);
  const [a, b, c, d] = [queue.enter(), queue.enter(), queue.enter(), queue.enter()];
  const admitted: string[] = [];
  for (const [name, ticket] of Object.entries({ a, b, c, d }))
    void ticket.turn.then((may) => admitted.push(`${name}:${may}`));
  await turn();
  t.same(admitted, ['a:true']);
  t.equal(queue.length, 3);
  t.notOk(queue.hasRoom);
  a.started();
  a.started();
  await turn();
  t.same(admitted, ['a:true', 'b:true'], 'a second word is not a second place');
  b.started();
  c.leave();
  await turn();
  t.same(admitted, ['a:true', 'b:true', 'c:false'], 'two are live, the third left, the fourth waits');
  b.leave();
  b.leave();
  await turn();
  t.equal(admitted.at(-1), 'd:true');
  d.leave();
  a.leave();
  t.ok(queue.hasRoom);
});

test('An idle watch does not count the time in which the process stood still', async (t) => {
  let time = 0;
  const watch = createIdleWatch({ now: () => time }, 40);
  t.teardown(() => watch.stop());
  let idle = 0;
  const entry = watch.watch(() => idle++);
  time = 5_000;
  await sleep(30);
  t.equal(idle, 0, 'a look that came too late begins anew');
  time = 5_030;
  entry.touch();
  await sleep(30);
  time = 5_060;
  await sleep(30);
  t.equal(idle, 0);
  time = 5_075;
  await sleep(30);
  t.equal(idle, 1);
  time = 5_200;
  await sleep(30);
  t.equal(idle, 1, 'and it is said once');
  entry.stop();
});

test('A stall watch looks at what was taken, not at what waits', async (t) => {
  let time = 0;
  const watch = createStallWatch({ now: () => time }, 40);
  t.teardown(() => watch.stop());
  const socket = { sent: 100, waiting: 50 };
  let stalls = 0;
  const unwatch = watch.watch({
    sent: () => socket.sent,
    waiting: () => socket.waiting,
    onStall: () => stalls++,
  });
  const look = async (at: number) => {
    time = at;
    await sleep(25);
  };
  await look(10);
  socket.sent = 200;
  await look(60);
  t.equal(stalls, 0, 'something was taken');
  socket.sent = 300;
  socket.waiting = 150;
  await look(90);
  await look(2_000);
  t.equal(stalls, 0, 'the process itself stood still');
  await look(2_039);
  t.equal(stalls, 0);
  await look(2_041);
  t.equal(stalls, 1);
  unwatch();
});

test('Only what may succeed when it is repeated is repeated', async (t) => {
  const passing = [
    Object.assign(new Error('x'), { code: '57P01' }),
    Object.assign(new Error('x'), { code: '40001' }),
    Object.assign(new Error('x'), { code: 'ECONNREFUSED' }),
    Object.assign(new Error('x'), { code: 'EPIPE' }),
    new Error('Connection terminated unexpectedly'),
    new Error('Query read timeout'),
    new Error('wrapped', { cause: new Error('timeout exceeded when trying to connect') }),
  ];
  for (const error of passing) t.ok(isPassing(error), error.message);
  const final = [
    Object.assign(new Error('x'), { code: '22P05' }),
    Object.assign(new Error('x'), { code: '42601' }),
    new TypeError('cannot read'),
    'text',
  ];
  for (const error of final) t.notOk(isPassing(error), String(error));

  let calls = 0;
  const flaky = async () => {
    calls++;
    if (calls < 3) throw new Error('Connection terminated');
    return 'answer';
  };
  const live = new AbortController();
  t.equal(await untilAnswered(flaky, live.signal), 'answer');
  const away = async () => {
    throw new Error('Connection terminated');
  };
  const waiting = untilAnswered(away, live.signal);
  setTimeout(() => live.abort(), 20);
  await t.rejects(waiting, StoppedError);
  t.equal(await untilAnswered(async () => 'last', live.signal), 'last', 'what can be written still is');
  await t.rejects(
    untilAnswered(async () => {
      throw new TypeError('wrong');
    }, new AbortController().signal),
    TypeError,
  );
});

test('What is thrown is told without its text unless it was made for callers', (t) => {
  t.same(problemOf(new Error('SELECT secret')).message, 'The runtime cannot answer now');
  t.equal(problemOf(new Problem('queue_full')).message, 'Queue full');
  t.equal(toError('x').message, 'x');
  t.end();
});

test('Given files without times get fixed ones, so that a log rebuilt is the same log', (t) => {
  const files = { '/a': { content: ['x'] }, '/b': { content: [], created_at: 'c', modified_at: 'm' } };
  const messages = [{ role: 'user', content: 'x' }];
  const input = { agent_definition: {}, input_payload: { messages, files } };
  t.same(givenFiles(input)['/b'], files['/b']);
  t.equal(givenFiles(input)['/a']?.created_at, '1970-01-01T00:00:00.000Z');
  t.same(givenFiles({ agent_definition: {}, input_payload: { messages } }), {});
  t.end();
});

test('An invoke that comes while a row in doubt is looked at starts no run beside it', async (t) => {
  const started: number[] = [];
  const steps: string[] = [];
  let answerLook: (taken: StartableRun[]) => void = () => {};
  const store = {
    insert: async () => {
      steps.push('insert');
      if (steps.length === 1) throw new Error('Connection terminated');
      return 'inserted' as const;
    },
    takeUnfinished: () => {
      steps.push('look');
      return new Promise<StartableRun[]>((resolve) => {
        answerLook = resolve;
      });
    },
  } as unknown as RunStore;
  const supervisor = {
    get: () => (started.length > 0 ? {} : undefined),
    start: (run: StartableRun) => started.push(run.epoch),
  } as unknown as RunSupervisor;
  const intake = createRunIntake(
    {
      runner: { check: () => {} } as unknown as AgentRunner,
      store,
      supervisor,
      queue: createRunQueue({ running: 1, starting: 1 }),
      logger: createLogger('silent'),
    },
    { runDeadlineMs: 1_000, queueLimit: 1 },
  );
  t.teardown(() => intake.stop());
  const job = jobOf({ job_id: 'doubt' }) as Parameters<typeof intake.invoke>[0];
  await t.rejects(intake.invoke(job, null), { code: 'not_ready' });
  while (!steps.includes('look')) await sleep(20);
  const again = intake.invoke(job, null);
  await sleep(20);
  t.same(steps, ['insert', 'look'], 'the second waits');
  answerLook([]);
  await again;
  t.same(steps, ['insert', 'look', 'insert']);
  t.same(started, [1]);
});
