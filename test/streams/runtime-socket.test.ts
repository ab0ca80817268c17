import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setImmediate as nextTurn, setTimeout as wait } from 'node:timers/promises';
import { test } from 'tap';
import { WebSocket, WebSocketServer } from 'ws';
import { FrameKind } from '../../src/streams/frame-batch.js';
import type { InPlaceReads } from '../../src/streams/read-in-place.js';
import { createRuntimeFrames } from '../../src/streams/runtime-socket.js';
import type { StreamPosition } from '../../src/streams/stream-position.js';
import type { SocketSignal } from '../../src/streams/stream-signals.js';
import { until } from '../support/until.js';

/** As the orchestrator opens it; `null`: everything is read by ws. */
function clientOf(port: number, reads: InPlaceReads | null): WebSocket {
  return new WebSocket(`ws://127.0.0.1:${port}`, {
    maxPayload: 64 * 1024,
    skipUTF8Validation: true,
    perMessageDeflate: false,
    ...(reads && {
      createConnection: reads.createConnection,
      finishRequest: (request) => {
        request.on('upgrade', (_response, _socket, head) => reads.upgraded(head));
        request.end();
      },
    }),
  });
}

/** One connection to a real server; `said` names what came, a read of three frames is `frames:3`. */
async function connect(
  teardown: (end: () => Promise<void>) => void,
  serve: (socket: WebSocket) => void,
  options: {
    pingIntervalMs?: number;
    frameBytes?: number;
    verify?: () => boolean;
    autoPong?: boolean;
    /** As over TLS, where nothing is read in place. */
    byWs?: boolean;
  } = {},
) {
  const server = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    autoPong: options.autoPong ?? true,
    ...(options.verify ? { verifyClient: options.verify } : {}),
  });
  await once(server, 'listening');
  server.on('connection', serve);
  const opened: (StreamPosition | null)[] = [];
  const frames = createRuntimeFrames({
    open: ({ position, reads }) => {
      opened.push(position);
      return clientOf((server.address() as AddressInfo).port, options.byWs ? null : reads);
    },
    pingIntervalMs: options.pingIntervalMs ?? 10_000,
    frameBytes: options.frameBytes ?? 32 * 1024,
  }).frames('thread', { after: 3, epoch: 1 });
  const said: string[] = [];
  const texts: string[] = [];
  const kinds: FrameKind[] = [];
  const signals: SocketSignal[] = [];
  let completed: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    completed = resolve;
  });
  const subscription = frames.subscribe({
    next(signal) {
      if (signal.type === 'frames') {
        said.push(`frames:${signal.batch.length}`);
        for (let index = 0; index < signal.batch.length; index++) {
          texts.push(String(signal.batch.frames[index]));
          kinds.push(signal.batch.kinds[index] ?? 0);
        }
      } else {
        signals.push(signal);
        said.push(signal.type);
      }
    },
    complete: completed,
  });
  teardown(async () => {
    subscription.unsubscribe();
    for (const client of server.clients) client.terminate();
    server.close();
    await once(server, 'close');
  });
  return { said, texts, kinds, signals, ended, subscription, server, opened };
}

test('frames of one read come as one batch, in order, at the position that was asked for', async (t) => {
  for (const byWs of [false, true]) {
    const serve = (socket: WebSocket) => {
      for (let index = 0; index < 100; index++) socket.send(`{"frame":${index}}`);
      socket.close(1000);
    };
    const { said, texts, ended, signals, opened } = await connect(t.teardown, serve, { byWs });
    await ended;
    t.same(
      texts,
      Array.from({ length: 100 }, (_, index) => `{"frame":${index}}`),
    );
    t.equal(said[0], 'connected');
    t.ok(said.length < 50, `${said.length} signals for 100 frames`);
    t.match(signals.at(-1), { type: 'closed', code: 1000 });
    t.same(opened, [{ after: 3, epoch: 1 }]);
  }
});

/** A server that answers the handshake and sends `bytes` right behind it, in pieces of that many bytes. */
async function servePieces(teardown: (end: () => void) => void, bytes: Buffer, piece: number) {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  teardown(() => server.close());
  server.on('upgrade', async (request, socket: Socket) => {
    const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}${handshakeSalt}`);
    const answer = Buffer.from(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`,
    );
    const all = Buffer.concat([answer, bytes]);
    socket.setNoDelay(true).on('error', () => undefined);
    for (let at = 0; at < all.length; at += piece) {
      socket.write(all.subarray(at, at + piece));
      // Some pieces arrive by themselves, some with their neighbours.
      if (at % 3 === 0) await nextTurn();
    }
    // The client answers the close frame and waits for this.
    socket.end();
  });
  return (server.address() as AddressInfo).port;
}

const handshakeSalt = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const frame = (first: number, text: string): Buffer => {
  const payload = Buffer.from(text);
  const length = payload.length;
  const head = length < 126 ? [first, length] : [first, 126, length >> 8, length & 255];
  return Buffer.concat([Buffer.from(head), payload]);
};

test('wherever reads end, frames come whole and in order, also right behind the handshake', async (t) => {
  const long = (letter: string) => `{"long":"${letter.repeat(9_000)}"}`;
  const sent = Buffer.concat([
    frame(0x81, '{"frame":0}'),
    frame(0x89, 'ping'),
    frame(0x81, long('a')),
    frame(0x01, '{"in":'),
    frame(0x80, '"pieces"}'),
    frame(0x81, '{"frame":1}'),
    frame(0x81, ''),
    frame(0x81, long('b')),
    frame(0x81, '{"frame":2}'),
    frame(0x88, ''),
  ]);
  const expected = ['{"frame":0}', long('a'), '{"in":"pieces"}', '{"frame":1}', '', long('b'), '{"frame":2}'];
  for (const piece of [sent.length + 1_000, 7_001, 1_009, 251, 64]) {
    const port = await servePieces(t.teardown, sent, piece);
    const frames = createRuntimeFrames({
      open: ({ reads }) => clientOf(port, reads),
      pingIntervalMs: 10_000,
      frameBytes: 64 * 1024,
    });
    const texts: string[] = [];
    const said: SocketSignal[] = [];
    await new Promise<void>((complete) => {
      frames.frames('thread', null).subscribe({
        complete,
        next(signal) {
          said.push(signal);
          if (signal.type !== 'frames') return;
          for (let at = 0; at < signal.batch.length; at++) texts.push(String(signal.batch.frames[at]));
        },
      });
    });
    t.same(texts, expected, `in pieces of ${piece}`);
    t.match(said.at(-1), { type: 'closed', code: 1005 });
  }
});

test('messages to the run leave while the connection is open', async (t) => {
  const heard: string[] = [];
  const { signals, ended } = await connect(t.teardown, (socket) => {
    socket.on('message', (data, isBinary) => {
      heard.push(`${String(data)} ${isBinary}`);
      socket.send('{"answer":1}');
      socket.close(1001);
    });
  });
  while (signals.length === 0) await wait(5);
  const [connected] = signals;
  if (connected?.type !== 'connected') throw new Error('not connected');
  t.equal(connected.send(Buffer.from('{"type":"cancel"}')), true);
  await ended;
  t.same(heard, ['{"type":"cancel"} false']);
  t.equal(connected.send('late'), false);
});

test('a peer that does not answer pings is taken for dead', async (t) => {
  const { said, ended, signals } = await connect(t.teardown, () => undefined, {
    pingIntervalMs: 30,
    autoPong: false,
  });
  await ended;
  t.same(said, ['connected', 'closed']);
  t.match(signals.at(-1), { code: 1006 });
});

test('a peer that answers pings may be silent', async (t) => {
  let pings = 0;
  const { said } = await connect(t.teardown, (socket) => socket.on('ping', () => pings++), {
    pingIntervalMs: 1_000,
  });
  await until(() => pings === 3);
  t.same(said, ['connected']);
});

test('a refused upgrade tells its status', async (t) => {
  const { said, signals, ended } = await connect(t.teardown, () => undefined, { verify: () => false });
  await ended;
  t.same(said, ['refused']);
  t.match(signals[0], { status: 401 });
});

test('a frame over the limit ends the connection after what came before it', async (t) => {
  const little = await connect(t.teardown, (socket) => {
    socket.send('{"a":1}');
    socket.send('x'.repeat(33 * 1024));
    socket.send('{"a":2}');
  });
  await little.ended;
  t.same(little.texts, ['{"a":1}']);
  t.equal(little.said.at(-1), 'oversized');
  const far = await connect(t.teardown, (socket) => socket.send('x'.repeat(100 * 1024)));
  await far.ended;
  t.same(far.said, ['connected', 'oversized']);
});

test('binary frames and broken UTF-8 are marked as unreadable, and the rest goes on', async (t) => {
  const { kinds, texts, ended } = await connect(t.teardown, (socket) => {
    socket.send(Buffer.from('{"a":1}'), { binary: true });
    socket.send(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), { binary: false });
    socket.send('{"é":"😀"}');
    socket.close(1000);
  });
  await ended;
  t.same(kinds, [FrameKind.unreadable, FrameKind.unreadable, FrameKind.other]);
  t.equal(texts[2], '{"é":"😀"}');
});

test('unsubscribing ends the connection, and nothing more is said', async (t) => {
  let left: () => void = () => undefined;
  const gone = new Promise<void>((resolve) => {
    left = resolve;
  });
  const { said, subscription, server } = await connect(t.teardown, (socket) => {
    socket.on('close', () => left());
    socket.send('{"a":1}');
  });
  while (said.length < 2) await wait(5);
  subscription.unsubscribe();
  await gone;
  t.equal(server.clients.size, 0);
  t.same(said, ['connected', 'frames:1']);
});

test('a server that is not there is a closed connection', async (t) => {
  const frames = createRuntimeFrames({
    open: () => new WebSocket('ws://127.0.0.1:1'),
    pingIntervalMs: 1000,
    frameBytes: 1000,
  });
  const said: string[] = [];
  await new Promise<void>((complete) => {
    frames.frames('thread', null).subscribe({ next: ({ type }) => said.push(type), complete });
  });
  t.same(said, ['closed']);
});
