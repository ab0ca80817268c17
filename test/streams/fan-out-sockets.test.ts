import type { WebSocket as UwsSocket } from 'uWebSockets.js';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'tap';
import { WebSocket } from 'ws';
import { listenOn, loadUws } from '../../src/http/uws.js';
import { createFanOut, type Member } from '../../src/streams/fan-out.js';
import { createReplayWindow, createWindowBudget } from '../../src/streams/replay-window.js';
import type { Viewer } from '../../src/streams/viewer.js';
import { lastFramesOf, subscribedFacts } from '../support/fan-out-fixture.js';
import { numberedBatch } from '../support/frames.js';
import { eventually } from '../support/until.js';

interface Guest {
  member?: Member;
  left?: boolean;
}

const budgetBytes = 1 << 20;
const frameBytes = 16 << 20;

/**
 * A fan-out behind real uWebSockets.js sockets, as `http/viewer-socket.ts` makes viewers of them. Who is slow is told by the
 * clock, which is the test's: on a busy machine nobody would be quick.
 */
async function createServer(teardown: (end: () => void) => void, stuckMs = 60_000) {
  const uws = await loadUws({ headerBytes: 16 * 1024 });
  const window = createReplayWindow(createWindowBudget({ processBytes: 1 << 28, threadBytes: 8 << 20 }));
  const app = uws.App();
  const steps: string[] = [];
  const clock = { now: 0 };
  const fanOut = createFanOut({
    topic: 'thread',
    firstEpoch: '1.1',
    epoch: '1.1',
    window,
    older: null,
    publish: (topic, message) => void app.publish(topic, message, false),
    budgetBytes,
    stuckMs,
    now: () => clock.now,
    onResume: () => undefined,
    onStep: (step) => void steps.push(step),
    onMerged: () => undefined,
    onLeftOut: () => undefined,
  });
  let dropped = 0;
  let most = 0;
  const viewerOf = (socket: UwsSocket<Guest>): Viewer => ({
    id: 'v',
    userId: 'u',
    access: 'owner',
    accessVersion: 1,
    traceId: 'trace',
    send: (message) => (socket.getUserData().left ? 2 : socket.send(message, false)),
    subscribe: (topic) => void (socket.getUserData().left || socket.subscribe(topic)),
    unsubscribe: (topic) => void (socket.getUserData().left || socket.unsubscribe(topic)),
    isClosed: () => socket.getUserData().left === true,
    bufferedBytes: () => (socket.getUserData().left ? 0 : socket.getBufferedAmount()),
    cork: (sends) => void (socket.getUserData().left || socket.cork(sends)),
    close(code, reason) {
      if (!socket.getUserData().left) socket.end(code, reason);
    },
  });
  app.ws<Guest>('/*', {
    maxBackpressure: frameBytes + budgetBytes + (1 << 20),
    open(socket) {
      socket.getUserData().member = fanOut.join(viewerOf(socket), {}, subscribedFacts, false);
    },
    drain: (socket) => socket.getUserData().member?.drained(),
    dropped: () => {
      dropped++;
    },
    close(socket) {
      socket.getUserData().left = true;
      socket.getUserData().member?.leave();
    },
  });
  const { port } = await listenOn(uws, app, '127.0.0.1', 0);
  teardown(() => app.close());
  return {
    fanOut,
    clock,
    dropped: () => dropped,
    steps,
    /** The most that ever waited for one viewer after a release. */
    most: () => most,
    release(...frames: Parameters<typeof numberedBatch>[0]) {
      const batch = numberedBatch(frames);
      window.append(batch, 0, batch.length);
      fanOut.publish(batch, 0, batch.length);
      for (const viewer of fanOut.viewers()) most = Math.max(most, viewer.bufferedBytes());
    },
    async view() {
      const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
      const seen: (number | string)[] = [];
      socket.on('message', (data) => {
        const frame = JSON.parse(String(data)) as { first_seq?: number; seq?: number; event_type: string };
        // A merged frame stands for a range.
        for (let seq = frame.first_seq ?? frame.seq ?? 0; seq < (frame.seq ?? 0); seq++) seen.push(seq);
        seen.push(frame.seq ?? frame.event_type);
      });
      let reason = '';
      const closed = once(socket, 'close').then(([code, text]) => {
        reason = String(text);
        return code as number;
      });
      await once(socket, 'open');
      return { socket, seen, closed, reason: () => reason };
    },
  };
}

test('a burst with a state of 5 MB in one turn reaches every viewer whole, the slow and the late one too', async (t) => {
  const { fanOut, release, view, dropped } = await createServer(t.teardown);
  const [healthy, slow] = [await view(), await view()];
  await eventually('two viewers', () => fanOut.size() === 2);
  slow.socket.pause();
  const content = 'x'.repeat(600);
  let seq = 0;
  const tokens = (count: number) => {
    for (let index = 0; index < count; index++) release({ seq: ++seq, data: { content } });
  };
  tokens(500);
  release(
    { seq: ++seq },
    { seq: ++seq, kind: 'on_state_update', data: { text: 'x'.repeat(5 << 20) } },
    { seq: ++seq },
  );
  tokens(500);
  const late = await view();
  for (let index = 0; index < 20; index++) {
    tokens(50);
    await turn();
  }
  slow.socket.resume();
  tokens(50);
  fanOut.finish(lastFramesOf('1.1', [seq + 1, 'end']));
  const all = ['on_subscribed', ...Array.from({ length: seq + 1 }, (_, index) => index + 1)];
  for (const { seen, closed } of [healthy, slow, late]) t.equal(await closed, 1000, `${seen.length}`);
  t.same(healthy.seen, all);
  t.same(slow.seen, all);
  t.same(late.seen, all, 'all of it is in the window');
  t.equal(dropped(), 0);
  t.equal(fanOut.size(), 0);
});

test('one stuck reader on a fast thread delays nobody, holds no more than its budget, and is told where to come back', async (t) => {
  const { fanOut, clock, release, view, steps, most } = await createServer(t.teardown, 400);
  const [fast, stuck] = [await view(), await view()];
  await eventually('two viewers', () => fanOut.size() === 2);
  stuck.socket.pause();
  const content = 'x'.repeat(2_000);
  let seq = 0;
  // What the network itself takes from the server is several megabytes on loopback.
  for (let round = 0; round < 1_000 && fanOut.size() === 2; round++) {
    for (let index = 0; index < 100; index++) release({ seq: ++seq, data: { content, id: 'm' } });
    release({ seq: ++seq, kind: 'on_state_update', data: { files: {} } });
    await eventually('the fast one has it all', () => fast.seen.length === seq + 1);
    clock.now += 20;
    fanOut.sweep(clock.now);
  }
  t.strictSame(fast.seen, ['on_subscribed', ...Array.from({ length: seq }, (_, index) => index + 1)]);
  t.equal(fanOut.size(), 1);
  t.ok(most() <= budgetBytes + 8_192, `${most()} bytes waited at most`);
  t.equal(steps.at(-1), 'closed');
  stuck.socket.resume();
  t.equal(await stuck.closed, 4408);
  const position = JSON.parse(stuck.reason()) as { epoch: string; seq: number };
  t.strictSame(position, { epoch: '1.1', seq: stuck.seen.at(-1) }, 'the number that it has');
  fanOut.closeAll(1000, 'done');
  t.equal(await fast.closed, 1000);
});
