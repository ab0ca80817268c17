import { Observable } from 'rxjs';
import t from 'tap';
import { createViewerEntrance, type ViewerEntranceDeps } from '../../src/actors/viewer-entrance.js';
import { createFrameCounts } from '../../src/streams/frame-counts.js';
import { createWindowBudget } from '../../src/streams/replay-window.js';
import type { SocketSignal } from '../../src/streams/stream-signals.js';
import { createThreadPipeline } from '../../src/streams/thread-pipeline.js';
import type { Viewer, ViewerPosition } from '../../src/streams/viewer.js';
import { createFakeTopics } from '../support/fake-viewer.js';
import { batchOf, frameText } from '../support/frames.js';

interface Joined {
  position: ViewerPosition;
  trusted: boolean;
  at: number;
}

/** An entrance on a clock of its own: waiting moves the clock and lets `passes` happen. */
function entrance(passes: (now: number) => void = () => undefined) {
  const thread = {
    known: false,
    hears: true,
    finished: false,
    final: false,
    stopped: false,
    epoch: '1.1',
    rowEpoch: '1.1',
    released: 0,
    told: 0,
    viewerClosed: false,
    /** What comes of reading older frames; null where nothing is missing. */
    older: null as (() => Promise<never[]>) | null,
  };
  const joined: Joined[] = [];
  const closed: number[] = [];
  const calls = { drained: 0, left: 0 };
  let clock = 0;
  const pass = async (milliseconds: number) => {
    // At least 100 ms pass: whoever waits is woken by anything that happens to the thread.
    clock += Math.max(Math.min(milliseconds, 100), 1);
    passes(clock);
    await Promise.resolve();
  };
  const pipeline = {
    known: () => thread.known,
    hears: () => thread.hears,
    finished: () => thread.finished,
    told: () => thread.told,
    older: { read: () => thread.older?.() },
    fanOut: {
      missing: () => (thread.older === null ? null : { epoch: thread.epoch, after: 0, upTo: 9 }),
      epoch: () => thread.epoch,
      lastReleased: () => thread.released,
      join(_viewer: Viewer, position: ViewerPosition, _facts: unknown, trusted: boolean) {
        joined.push({ position, trusted, at: clock });
        return { drained: () => calls.drained++, leave: () => calls.left++ };
      },
    },
  };
  const attach = createViewerEntrance({
    pipeline: pipeline as unknown as ViewerEntranceDeps['pipeline'],
    facts: () => ({ thread_id: 't', proposal_id: 'p', status: 'processing', phase: 'streaming' }),
    isFinal: () => thread.final,
    isStopped: () => thread.stopped,
    rowEpoch: () => thread.rowEpoch,
    happens: pass,
    sleep: pass,
    now: () => clock,
    sendToRun: () => true,
  });
  const viewer = {
    close: (code: number) => closed.push(code),
    isClosed: () => thread.viewerClosed,
  } as unknown as Viewer;
  return { thread, joined, closed, calls, attach: (position: ViewerPosition) => attach(viewer, position) };
}

t.test('a viewer without a position is let in at once', async (t) => {
  const { attach, joined, calls } = entrance();
  const attachment = await attach({});
  t.strictSame(joined, [{ position: {}, trusted: false, at: 0 }]);
  attachment.drained();
  attachment.detach();
  t.strictSame(calls, { drained: 1, left: 1 });
  t.equal(attachment.sendToRun('x'), true);
});

t.test('a position waits until this replica knows the log', async (t) => {
  const house = entrance((now) => {
    if (now >= 700) Object.assign(house.thread, { known: true, released: 9 });
  });
  await house.attach({ after: 4, epoch: '1.1' });
  t.match(house.joined, [{ trusted: false, at: 700 }]);
});

t.test(
  'while the runtime is away a position in the row’s epoch is believed after 5 s, another is not',
  async (t) => {
    const own = entrance();
    await own.attach({ after: 4, epoch: '1.1' });
    t.strictSame(own.joined, [{ position: { after: 4, epoch: '1.1' }, trusted: true, at: 5_000 }]);
    const unnamed = entrance();
    await unnamed.attach({ after: 4 });
    t.match(unnamed.joined, [{ trusted: true }], 'without an epoch the first is meant');
    const foreign = entrance();
    await foreign.attach({ after: 4, epoch: '1.elsewhere' });
    t.match(foreign.joined, [{ trusted: false }]);
  },
);

t.test('a position ahead of us waits 1 s for numbers that another replica has seen first', async (t) => {
  const coming = entrance((now) => {
    coming.thread.released = Math.floor(now / 100);
  });
  coming.thread.known = true;
  await coming.attach({ after: 4, epoch: '1.1' });
  t.match(coming.joined, [{ trusted: false, at: 400 }]);
  const never = entrance();
  never.thread.known = true;
  await never.attach({ after: 4, epoch: '1.1' });
  t.match(never.joined, [{ trusted: false, at: 1_000 }]);
  const finished = entrance();
  Object.assign(finished.thread, { final: true, finished: true });
  await finished.attach({ after: 4, epoch: '1.1' });
  t.match(finished.joined, [{ at: 0 }], 'a final row is judged at once');
});

t.test(
  'a position in a log that the row names and we have not waits for it, and is sent elsewhere when it does not come',
  async (t) => {
    for (const later of ['1.2', '2.1', '1.closed']) {
      const coming = entrance((now) => {
        if (now >= 700) coming.thread.epoch = later;
      });
      Object.assign(coming.thread, { known: true, rowEpoch: later });
      await coming.attach({ after: 0, epoch: later });
      t.match(coming.joined, [{ trusted: false, at: 700 }], later);
      const never = entrance();
      Object.assign(never.thread, { known: true, rowEpoch: later });
      await never.attach({ after: 4, epoch: later });
      t.strictSame(never.joined, [], `${later} is not answered from the log before`);
      t.strictSame(never.closed, [1013]);
    }
    const foreign = entrance();
    foreign.thread.known = true;
    await foreign.attach({ after: 4, epoch: '9.9' });
    t.match(foreign.joined, [{ trusted: false, at: 1_000 }], 'one that nobody names is foreign after 1 s');
    const deaf = entrance();
    Object.assign(deaf.thread, { known: true, hears: false });
    await deaf.attach({ after: 4, epoch: '1.2' });
    t.strictSame(deaf.closed, [1013], 'unless nothing is heard of the run here');
    const earlier = entrance();
    Object.assign(earlier.thread, { known: true, epoch: '2.1' });
    await earlier.attach({ after: 4, epoch: '1.9' });
    t.match(earlier.joined, [{ at: 0 }], 'an earlier one is answered at once');
    const finished = entrance();
    Object.assign(finished.thread, { final: true, finished: true });
    await finished.attach({ after: 4, epoch: '3.1' });
    t.match(finished.joined, [{ at: 0 }], 'and where the row is final, every one');
  },
);

t.test('a row that has ended is joined when its last frames are here', async (t) => {
  const house = entrance((now) => {
    if (now >= 300) house.thread.finished = true;
  });
  house.thread.final = true;
  await house.attach({});
  t.match(house.joined, [{ at: 300 }]);
});

t.test('a viewer that left while it waited joins nothing', async (t) => {
  const house = entrance();
  const attaching = house.attach({ after: 4 });
  house.thread.known = true;
  house.thread.stopped = true;
  const attachment = await attaching;
  t.strictSame(house.closed, [1012], 'a replica that stops sends it elsewhere');
  attachment.drained();
  attachment.detach();
  t.strictSame(house.joined, []);
  t.strictSame(house.calls, { drained: 0, left: 0 });
});

t.test('a viewer whose socket closed while it waited joins nothing', async (t) => {
  const waits = {
    'for the log': { known: false },
    'for numbers that are ahead': { known: true },
    'for the last frames': { known: true, final: true },
  };
  for (const [what, state] of Object.entries(waits)) {
    const house = entrance();
    Object.assign(house.thread, state);
    const attaching = house.attach({ after: 4, epoch: '1.1' });
    house.thread.viewerClosed = true;
    await attaching;
    t.strictSame(house.joined, [], what);
    t.strictSame(house.closed, [], what);
  }
  const reading = entrance();
  Object.assign(reading.thread, { known: true, released: 9 });
  reading.thread.older = async () => {
    reading.thread.viewerClosed = true;
    return [];
  };
  await reading.attach({ after: 4, epoch: '1.1' });
  t.strictSame(reading.joined, [], 'while older frames were read');
});

t.test(
  'a viewer that waited for older frames while the actor stopped is sent elsewhere with 1012',
  async (t) => {
    const house = entrance();
    Object.assign(house.thread, { known: true, released: 9 });
    house.thread.older = async () => {
      house.thread.stopped = true;
      return [];
    };
    await house.attach({ after: 4, epoch: '1.1' });
    t.strictSame(house.closed, [1012]);
    t.strictSame(house.joined, []);
  },
);

t.test(
  'a position that the runtime has named is exact at once, although its frames are still being read here',
  async (t) => {
    const topics = createFakeTopics();
    let signal: (next: SocketSignal) => void = () => undefined;
    const frames = (...texts: string[]) => signal({ type: 'frames', batch: batchOf(texts) });
    let clock = 0;
    const sleep = async (milliseconds: number) => {
      clock += milliseconds;
    };
    const pipeline = createThreadPipeline({
      threadId: 'thread',
      firstEpoch: '1.1',
      epoch: '1.1',
      readBefore: 1,
      runtimeFrames: {
        frames: () =>
          new Observable((reader) => {
            signal = (next) => reader.next(next);
          }),
      },
      client: { getState: async () => ({ kind: 'away' }) },
      windowBudget: createWindowBudget({ processBytes: 1 << 24, threadBytes: 1 << 22 }),
      older: null,
      publish: topics.publish,
      viewerBudgetBytes: 1 << 20,
      viewerStuckMs: 10_000,
      frameCounts: createFrameCounts(),
      reconnectDelayMs: () => 50,
      sleep,
      now: () => clock,
      randomEpoch: () => 'r',
      onResume: () => undefined,
      onStep: () => undefined,
      onMerged: () => undefined,
      onLeftOut: () => undefined,
      onRead: () => undefined,
    });
    const reading = pipeline.read({ attempt: 1, runtimeThreadId: 'run' }).subscribe();
    const attach = createViewerEntrance({
      pipeline,
      facts: () => ({ thread_id: 't', proposal_id: 'p', status: 'processing', phase: 'streaming' }),
      isFinal: () => false,
      isStopped: () => false,
      rowEpoch: () => '1.1',
      happens: sleep,
      sleep,
      now: () => clock,
      sendToRun: () => false,
    });
    signal({ type: 'connected', send: () => true });
    frames('{"event_type":"on_open","data":{"epoch":1,"first_seq":1,"last_seq":100}}', frameText(1));
    t.equal(pipeline.told(), 100);
    const viewer = topics.join();
    await attach(viewer, { after: 90, epoch: '1.1' });
    t.match(viewer.received, [{ event_type: 'on_subscribed', data: { recovery: 'exact', last_seq: 90 } }]);
    t.equal(clock, 0, 'nothing was waited for');
    frames(...Array.from({ length: 99 }, (_, index) => frameText(index + 2)));
    t.strictSame(
      viewer.received.slice(1).map(({ seq }) => seq),
      Array.from({ length: 10 }, (_, index) => index + 91),
    );
    const told = { attempt: 2, max: 4, delay_ms: 0, epoch: '2.1' };
    pipeline.beginAttempt(2, { event_type: 'on_retry', data: told });
    t.equal(pipeline.told(), 0, 'nothing is named of the next attempt yet');
    reading.unsubscribe();
  },
);

t.test('a position beyond what the runtime has named waits 1 s, and is judged', async (t) => {
  const house = entrance();
  Object.assign(house.thread, { known: true, released: 9, told: 100 });
  await house.attach({ after: 101, epoch: '1.1' });
  t.match(house.joined, [{ trusted: false, at: 1_000 }]);
});
