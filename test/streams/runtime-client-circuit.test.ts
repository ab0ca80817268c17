import { setTimeout as wait } from 'node:timers/promises';
import { test } from 'tap';
import { createRuntimeCircuit } from '../../src/streams/runtime-circuit.js';
import { countOf, createRuntimeClientFixture, jobOf } from '../support/runtime-client-fixture.js';
import type { ScriptedAnswer } from '../support/scripted-runtime.js';
import { eventually } from '../support/until.js';

const circuitState = 'ide_orchestrator_circuit_state{circuit="runtime"}';
/** A circuit that asks again after a second: it is open for as long as a call may take. */
const soon = {
  circuitOpenMs: 1,
  times: { invokeDeadlineMs: 1_000, callDeadlineMs: 1_000, handshakeTimeoutMs: 1_000 },
};
const small = {
  name: 'small',
  openMs: 500,
  longestCallMs: 500,
  concurrent: 2,
  waiting: 1,
  maxWaitMs: 60_000,
  probe: async () => 'good' as const,
};
const unavailable = (): ScriptedAnswer => ({ status: 503, body: {} });

test('the circuit opens after exactly five failures in a row, and then nothing is sent', async (t) => {
  const { client, runtime, metrics } = await createRuntimeClientFixture(t.teardown);
  for (let index = 0; index < 7; index++) await client.invoke(jobOf(`good-${index}`));
  runtime.script.invoke = unavailable;
  for (let failure = 1; failure <= 5; failure++) {
    t.equal(client.circuit.state(), 'closed', `before failure ${failure}`);
    t.equal(client.circuit.retryAfterSeconds(), null);
    t.match(await client.invoke(jobOf('bad')), { kind: 'refused', reason: 'status' });
  }
  t.equal(client.circuit.state(), 'open');
  const seconds = client.circuit.retryAfterSeconds() ?? 0;
  t.ok(seconds > 1 && seconds <= 30, `${seconds} s`);
  t.equal(await countOf(metrics, circuitState), 2);
  const sent = runtime.requests.length;
  t.match(await client.invoke(jobOf('bad')), {
    kind: 'refused',
    reason: 'circuit_open',
    status: null,
    retryAfterSeconds: Number,
  });
  t.same(await client.getState('bad'), { kind: 'away' });
  t.equal(await client.cancel('bad'), 'away');
  t.equal(runtime.requests.length, sent);
});

test('one success among failures keeps the circuit closed', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  for (let round = 0; round < 3; round++) {
    runtime.script.invoke = unavailable;
    for (let failure = 0; failure < 4; failure++) await client.invoke(jobOf('bad'));
    delete runtime.script.invoke;
    t.match(await client.invoke(jobOf('good')), { kind: 'started' });
    t.equal(client.circuit.state(), 'closed');
  }
});

test('a runtime that answers 4xx, or nonsense, is there: only 408, 429, 5xx, silence and lost connections count', async (t) => {
  const { client, runtime, times } = await createRuntimeClientFixture(t.teardown, {}, { retry: none() });
  for (const answer of [
    { status: 404 },
    { status: 422 },
    { status: 410 },
    { status: 200, body: 'nonsense' },
    { status: 200, body: 'x'.repeat(100_000) },
  ]) {
    runtime.script.invoke = () => answer;
    for (let index = 0; index < 6; index++) await client.invoke(jobOf('job'));
    t.equal(client.circuit.state(), 'closed', String(answer.status));
  }
  const failures: ScriptedAnswer[] = [{ status: 408 }, { status: 429 }, { status: 500 }, 'cut', 'hang'];
  runtime.script.invoke = () => failures.shift();
  for (let index = 0; index < 5; index++) {
    if (failures[0] === 'hang') times.invokeDeadlineMs = 200;
    await client.invoke(jobOf('job'));
  }
  t.equal(client.circuit.state(), 'open');
});

test('refused connections open the circuit', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {}, { retry: none() });
  await runtime.goAway();
  for (let index = 0; index < 5; index++) await client.getState('job');
  t.equal(client.circuit.state(), 'open');
});

test('callers that give up say nothing of the runtime', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, { invoke: () => 'hang' });
  for (let index = 1; index <= 6; index++) {
    const controller = new AbortController();
    const under = client.invoke(jobOf('job'), { signal: controller.signal });
    await runtime.untilRequest('invoke', index);
    controller.abort();
    await under;
  }
  t.equal(client.circuit.state(), 'closed');
});

test('when it has been open long enough the runtime is asked once whether it is ready, and that closes the circuit', async (t) => {
  let ready: (answer: ScriptedAnswer) => void = () => undefined;
  const { client, runtime, metrics, times } = await createRuntimeClientFixture(
    t.teardown,
    {
      invoke: unavailable,
      ready: () =>
        new Promise((resolve) => {
          ready = resolve;
        }),
    },
    soon,
  );
  // The question is answered when this test has seen what it came for.
  times.callDeadlineMs = 60_000;
  for (let index = 0; index < 5; index++) await client.invoke(jobOf('bad'));
  const sent = runtime.requests.length;
  const paused = [1, 2, 3].map(() => client.pause(1e9));
  await runtime.untilRequest('ready');
  t.equal(client.circuit.state(), 'half_open');
  t.equal(client.circuit.retryAfterSeconds(), 1, 'the probe is under way');
  delete runtime.script.invoke;
  t.match(await client.invoke(jobOf('other')), { kind: 'refused', reason: 'circuit_open' });
  t.same(await client.getState('other'), { kind: 'away' });
  ready({ status: 200 });
  await Promise.all(paused);
  t.equal(client.circuit.state(), 'closed', 'whoever waited goes on');
  t.equal(runtime.requests.length, sent + 1);
  t.match(await client.invoke(jobOf('other')), { kind: 'started' });
  t.equal(
    await countOf(
      metrics,
      'ide_orchestrator_deepagents_runtime_requests_total{endpoint="ready",status="200"}',
    ),
    1,
  );
});

test('a probe that fails or times out opens the circuit again, and 404 is an answer', async (t) => {
  const answers: ScriptedAnswer[] = [{ status: 503 }, { status: 500 }, 'hang', 'cut', { status: 404 }];
  const states: (string | undefined)[] = [];
  const { client, runtime, times } = await createRuntimeClientFixture(
    t.teardown,
    {
      invoke: unavailable,
      ready() {
        const answer = answers[states.push(client.circuit.state()) - 1] ?? 'hang';
        // The last answer has all the time that it needs.
        if (answer === 'cut') times.callDeadlineMs = 60_000;
        return answer;
      },
    },
    soon,
  );
  for (let index = 0; index < 5; index++) await client.invoke(jobOf('bad'));
  await client.pause(1e9);
  t.strictSame(states, Array(5).fill('half_open'), 'each after another time in the open');
  t.equal(client.circuit.state(), 'closed');
  t.equal(runtime.requestsOf('ready').length, 5);
});

test('a pause ends with its time, or with its caller', async (t) => {
  const { client } = await createRuntimeClientFixture(t.teardown);
  const left = new AbortController();
  const waiting = client.pause(1e9, left.signal);
  left.abort();
  await Promise.all([waiting, client.pause(1e9, left.signal), client.pause(1)]);
});

test('what one run answers again and again does not open the circuit for all', async (t) => {
  const { client, runtime, times } = await createRuntimeClientFixture(t.teardown, {}, { retry: none() });
  for (const answer of ['hang', { status: 500 }, 'cut'] as const) {
    times.callDeadlineMs = answer === 'hang' ? 50 : 30_000;
    runtime.script.state = runtime.script.cancel = () => answer;
    for (let index = 0; index < 6; index++) await client.getState('dead');
    for (let index = 0; index < 6; index++) await client.cancel('dead');
    t.equal(client.circuit.state(), 'closed', String(answer));
  }
  for (const other of ['b', 'c', 'd']) await client.getState(other);
  await client.getState('dead');
  t.equal(client.circuit.state(), 'closed', 'one failure of each');
  await client.getState('e');
  t.equal(client.circuit.state(), 'open', 'what fails for everybody does');
});

test('a success of anything ends the row of failures, of a stream too; a failed stream does not', async (t) => {
  const { client, runtime } = await createRuntimeClientFixture(t.teardown);
  const stream = (threadId: string) =>
    new Promise<void>((resolve) => {
      const socket = client.streamWebSocket({ threadId, after: null, epoch: null });
      // What is counted is counted behind these.
      const over = () => setImmediate(() => setImmediate(resolve));
      socket.once('open', () => socket.terminate()).once('error', over);
      socket.once('close', over);
    });
  const fail = async (times: number) => {
    runtime.script.invoke = unavailable;
    for (let index = 0; index < times; index++) await client.invoke(jobOf('bad'));
  };
  await fail(4);
  await stream('unknown');
  await fail(4);
  t.equal(client.circuit.state(), 'closed', '404 is an answer');
  runtime.script.upgrade = unavailable;
  await stream('unknown');
  t.equal(client.circuit.state(), 'closed');
  await fail(1);
  t.equal(client.circuit.state(), 'open');
});

test('clean-ups have a circuit of their own', async (t) => {
  const { client } = await createRuntimeClientFixture(
    t.teardown,
    { cleanup: unavailable },
    { retry: none() },
  );
  for (let index = 0; index < 5; index++) t.equal(await client.cleanup(`job-${index}`), 'pending');
  t.equal(client.outboxCircuit.state(), 'open');
  t.equal(client.circuit.state(), 'closed');
  t.match(await client.invoke(jobOf('job')), { kind: 'started' });
});

test('calls beyond the bulkhead wait in line, and beyond the line they are refused', async (t) => {
  const circuit = createRuntimeCircuit(small);
  const hasty = createRuntimeCircuit({ ...small, maxWaitMs: 30 });
  t.teardown(() => {
    circuit.stop();
    hasty.stop();
  });
  const call = (ms: number) => async () => ({ value: await wait(ms, ms), health: 'good' as const });
  const [a, b, c, d] = await Promise.all([20, 20, 1, 1].map((ms) => circuit.run(call(ms))));
  t.same([a, b, c, d], [done(20), done(20), done(1), { kind: 'overloaded' }]);
  let end = () => {};
  const ends = new Promise<void>((resolve) => {
    end = resolve;
  });
  const held = [1, 2].map(() => hasty.run(() => ends.then(() => ({ value: 'held', health: 'good' }))));
  t.same(await hasty.run(call(1)), { kind: 'overloaded' }, 'waited too long');
  end();
  t.match(await Promise.all(held), [{ kind: 'done' }, { kind: 'done' }]);
  t.equal(circuit.state(), 'closed');
  await t.rejects(
    circuit.run(() => Promise.reject(new Error('a bug'))),
    { message: 'a bug' },
  );
});

test('a call that begins while the fifth failure is being counted does not undo the opening', async (t) => {
  for (let microtasks = 0; microtasks < 12; microtasks++) {
    const circuit = createRuntimeCircuit({ ...small, openMs: 5_000 });
    t.teardown(() => circuit.stop());
    const bad = async () => ({ value: 'bad', health: 'bad' as const });
    for (let failure = 1; failure <= 4; failure++) await circuit.run(bad);
    let fail: () => void = () => undefined;
    const failing = new Promise<void>((resolve) => {
      fail = resolve;
    });
    const fifth = circuit.run(() => failing.then(bad));
    await wait(1);
    fail();
    for (let turn = 0; turn < microtasks; turn++) await null;
    const late = circuit.run(async () => ({ value: await wait(2, 'good'), health: 'good' as const }));
    await Promise.all([fifth, late]);
    t.equal(circuit.state(), 'open', `${microtasks} microtasks later`);
  }
});

test('once stopped, an open circuit and calls that fail late leave no timer behind', async (t) => {
  const timers = () => process.getActiveResourcesInfo().filter((each) => each === 'Timeout').length;
  const before = timers();
  const bad = async () => ({ value: 'bad', health: 'bad' as const });
  const open = createRuntimeCircuit(small);
  for (let failure = 0; failure < 5; failure++) await open.run(bad);
  t.equal(open.state(), 'open');
  open.stop();
  const closed = createRuntimeCircuit(small);
  const late = Array.from({ length: 5 }, () => closed.run(() => Promise.resolve().then(bad)));
  closed.stop();
  await Promise.all(late);
  t.equal(closed.state(), 'closed');
  t.equal(timers(), before);
});

function none() {
  return { count: 0, baseMs: 1, maxMs: 1 };
}

function done(value: number) {
  return { kind: 'done', value };
}

test('whether a replica reaches the runtime is told by its last try, a stream’s too (rule 16)', async (t) => {
  const clock = { now: 0 };
  const { client, runtime } = await createRuntimeClientFixture(t.teardown, {}, { now: () => clock.now });
  const opened = (threadId: string) =>
    new Promise<void>((resolve) => {
      const socket = client.streamWebSocket({ threadId, after: null, epoch: null });
      socket.once('open', () => socket.terminate());
      socket.once('error', () => undefined).once('close', () => resolve());
    });
  /** It is counted behind the events of the socket. */
  const silent = (ms: number) => eventually(`${ms} ms`, () => client.silentMs() === ms);
  clock.now = 1_000;
  t.equal(client.silentMs(), 0, 'nothing was tried');
  runtime.script.state = unavailable;
  await client.getState('a');
  t.equal(client.silentMs(), 1_000, 'a proxy’s word is not the runtime’s');
  runtime.script.state = () => ({ status: 429, body: {} });
  await client.getState('a');
  t.equal(client.silentMs(), 0, 'a refusal is');
  clock.now = 5_000;
  await runtime.goAway();
  await opened('a');
  await silent(4_000);
  await runtime.comeBack();
  await opened('a');
  // An unknown thread is an answer.
  await silent(0);
});
