import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { createAccessWatch } from '../../src/actors/access-watch.js';
import { createDroppedEnd, type DroppedEndDeps } from '../../src/actors/dropped-end.js';
import { createWaitingCommits, type WaitingEnd } from '../../src/actors/waiting-commits.js';
import { createNewestFiles } from '../../src/streams/newest-files.js';
import type { StateResult } from '../../src/streams/runtime-client.js';
import type { RunEnding } from '../../src/streams/stream-signals.js';

/** An end of so many bytes that writes down what becomes of it. */
const endOf = (bytes: number, log: string[], name: string): WaitingEnd => {
  let dropped = false;
  return {
    bytes: () => bytes,
    drop() {
      dropped = true;
      log.push(`drop ${name}`);
    },
    async regain() {
      if (dropped) log.push(`regain ${name}`);
    },
  };
};
const turn = () => wait(1);

t.test('what waits holds no more than the budget, and goes on first come, first served', async (t) => {
  const commits = createWaitingCommits(100);
  const log: string[] = [];
  const ends: (() => void)[] = [];
  const held: Promise<void>[] = [];
  for (const [name, bytes] of Object.entries({ a: 60, b: 50, c: 30, d: 10 })) {
    held.push(
      commits.hold(endOf(bytes, log, name), () => {
        log.push(`commit ${name}`);
        return new Promise((resolve) => ends.push(resolve));
      }),
    );
    await turn();
  }
  t.strictSame(log.splice(0), ['commit a', 'drop b', 'drop c', 'drop d'], 'nobody passes one who waits');
  t.equal(commits.bytes(), 60);
  ends[0]?.();
  await turn();
  t.strictSame(log.splice(0).sort(), [
    'commit b',
    'commit c',
    'commit d',
    'regain b',
    'regain c',
    'regain d',
  ]);
  t.equal(commits.bytes(), 90);
  for (const end of ends) end();
  await Promise.all(held);
  t.equal(commits.bytes(), 0);
});

t.test('an end that holds nothing waits for nobody', async (t) => {
  const commits = createWaitingCommits(100);
  const log: string[] = [];
  let end = () => {};
  const large = commits.hold(endOf(100, log, 'large'), () => new Promise<void>((resolve) => (end = resolve)));
  const small = commits.hold(endOf(1, log, 'small'), async () => log.push('commit small'));
  await commits.hold(endOf(0, log, 'empty'), async () => log.push('commit empty'));
  t.strictSame(log, ['drop small', 'commit empty']);
  t.equal(commits.bytes(), 100);
  end();
  await Promise.all([large, small]);
  const { end: nothing, newestFiles } = bench([], []);
  t.equal(nothing.bytes(), 0);
  newestFiles.take(frame, 4);
  t.ok(nothing.bytes() > 0);
});

t.test('an end over the whole budget goes alone, and one that fails gives its room back', async (t) => {
  const commits = createWaitingCommits(100);
  const log: string[] = [];
  let fail = () => {};
  const large = commits.hold(
    endOf(500, log, 'large'),
    () => new Promise((_, reject) => (fail = () => reject(new Error('no')))),
  );
  const small = commits.hold(endOf(1, log, 'small'), async () => log.push('commit small'));
  await turn();
  t.strictSame(log, ['drop small']);
  fail();
  await t.rejects(large, { message: 'no' });
  await small;
  t.equal(commits.bytes(), 0);
});

const files = { '/a.md': { content: ['two'] } };
const frame = Buffer.from(JSON.stringify({ seq: 4, event_type: 'on_state_update', data: { files } }));
const stateOf = (status: 'running' | 'completed'): StateResult => ({
  kind: 'state',
  state: { thread_id: 't', status, result: 'long', generated_files: status === 'running' ? null : files },
});

function bench(log: (Buffer | null)[], states: StateResult[], ending: RunEnding | null = null) {
  const newestFiles = createNewestFiles();
  const asked: string[] = [];
  let stopped = false;
  const deps: DroppedEndDeps = {
    pipeline: {
      newestFiles,
      readAgain: async (number) => {
        asked.push(`frame ${number}`);
        return log.shift() ?? null;
      },
    },
    ending: () => ending,
    askState: async () => {
      asked.push('state');
      return states.shift() ?? { kind: 'away' };
    },
    sleep: async () => {
      asked.push('sleep');
      await turn();
    },
    delayMs: () => 0,
    isStopped: () => stopped,
    log: { info: () => undefined },
  };
  return { end: createDroppedEnd(deps), newestFiles, asked, stop: () => (stopped = true) };
}

t.test('a state that was let go is read again from the log, byte for byte', async (t) => {
  const { end, newestFiles, asked } = bench([null, frame], [{ kind: 'away' }]);
  newestFiles.take(frame, 4);
  t.equal(end.bytes(), Math.max(1024, 3 * frame.length));
  end.drop();
  t.equal(newestFiles.frame(), null);
  await end.regain();
  t.strictSame(newestFiles.frame(), { number: 4, bytes: frame });
  t.strictSame(asked, ['frame 4', 'state', 'sleep', 'frame 4']);
  await end.regain();
  t.equal(asked.length, 4, 'nothing is missing any more');
});

t.test('where the log has it no more it is made of the runtime’s state, under its number', async (t) => {
  for (const number of [4, 0]) {
    const { end, newestFiles, asked } = bench([], [stateOf('running'), stateOf('completed')]);
    newestFiles.take(frame, number);
    end.drop();
    await end.regain();
    t.strictSame(newestFiles.files(), files);
    t.equal(newestFiles.frame()?.number, number);
    t.equal(asked.includes('frame 0'), false, 'what has no number cannot be asked for');
    t.equal(asked.filter((what) => what === 'state').length, 2);
  }
});

t.test('an end that only the state told is told by it again', async (t) => {
  const told = stateOf('completed');
  if (told.kind !== 'state') throw new Error('no state');
  const ending = { errorNumber: 0, errorBytes: null, error: null, endNumber: 0, state: told.state };
  const { end } = bench([], [stateOf('completed')], ending);
  end.drop();
  t.match(ending.state, { status: 'completed', result: null, generated_files: null });
  await end.regain();
  t.strictSame(ending.state, told.state);
});

t.test('a runtime that knows nothing, goes on saying `running`, or a stop ends the reading', async (t) => {
  const gone = bench([], [{ kind: 'not_found' }]);
  gone.newestFiles.take(frame, 4);
  gone.end.drop();
  await gone.end.regain();
  t.equal(gone.newestFiles.frame(), null);
  const running = bench(
    [],
    Array.from({ length: 50 }, () => stateOf('running')),
  );
  running.newestFiles.take(frame, 4);
  running.end.drop();
  await running.end.regain();
  t.equal(running.asked.filter((what) => what === 'state').length, 20);
  const stopped = bench([], []);
  stopped.newestFiles.take(frame, 4);
  stopped.end.drop();
  stopped.stop();
  await stopped.end.regain();
  t.strictSame(stopped.asked, []);
});

t.test(
  'an end that nobody waits for asks a runtime that is away no longer, and gives its room back',
  async (t) => {
    const commits = createWaitingCommits(1_024);
    const { end, newestFiles, asked, stop } = bench([], []);
    newestFiles.take(frame, 4);
    const log: string[] = [];
    let back = () => {};
    const first = commits.hold(
      endOf(1_000, log, 'first'),
      () => new Promise<void>((resolve) => (back = resolve)),
    );
    await turn();
    const cancelled = commits.hold(end, async () => log.push('commit cancelled'));
    const next = commits.hold(endOf(1_000, log, 'next'), async () => log.push('commit next'));
    back();
    await first;
    while (asked.length < 9) await turn();
    t.notOk(log.includes('commit cancelled'));
    stop();
    await Promise.all([cancelled, next]);
    t.strictSame(log, ['drop next', 'commit cancelled', 'regain next', 'commit next']);
    t.equal(commits.bytes(), 0);
  },
);

t.test(
  'who may look is unknown when nothing was read for long, not when the process stood still',
  async (t) => {
    let now = 0;
    const watch = createAccessWatch({ unknownMs: 120_000, now: () => now });
    const second = () => {
      now += 1_000;
      return watch.isUnknown();
    };
    for (let count = 0; count < 120; count++) t.equal(second(), false);
    t.equal(second(), true);
    watch.read();
    t.equal(second(), false);
    now += 600_000;
    t.equal(watch.isUnknown(), false, 'a reading gets its chance first');
    for (let count = 0; count < 2; count++) t.equal(second(), false);
    t.equal(second(), true, 'it did not come');
  },
);
