import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import tap, { type Test } from 'tap';
import { createTcpProxy } from '../../chaos/tcp-proxy.js';
import { nextKeptPort } from '../support/same-port.js';

/** A server that says back what it hears, and a proxy before it. */
async function open(t: Test) {
  const taken: net.Socket[] = [];
  const server = net.createServer((socket) => {
    taken.push(socket);
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const targetPort = (server.address() as net.AddressInfo).port;
  const proxy = await createTcpProxy({ port: await nextKeptPort(), targetPort });
  t.teardown(async () => {
    await proxy.close();
    for (const socket of taken) socket.destroy();
    server.close();
  });
  return { proxy, server, taken };
}

async function connect(t: Test, port: number) {
  const socket = net.connect({ port, host: '127.0.0.1' });
  t.teardown(() => void socket.destroy());
  const pieces: Buffer[] = [];
  socket.on('data', (piece) => void pieces.push(piece));
  const closed = new Promise<string>((resolve) => {
    let code = 'end';
    socket.on('error', (error: NodeJS.ErrnoException) => {
      code = error.code ?? 'error';
    });
    socket.on('close', () => resolve(code));
  });
  await once(socket, 'connect');
  const heard = () => Buffer.concat(pieces);
  const until = async (length: number) => {
    while (heard().length < length) await wait(2);
  };
  return { socket, pieces, heard, until, closed };
}

tap.test('what goes in comes out, in order, whole and however it is cut up', async (t) => {
  const { proxy } = await open(t);
  const client = await connect(t, proxy.port);
  const much = randomBytes(3 * 1024 * 1024);
  client.socket.write(much);
  await client.until(much.length);
  t.ok(client.heard().equals(much), 'three megabytes, more than may wait on the way');

  proxy.slice(7);
  const before = client.pieces.length;
  const little = randomBytes(500);
  client.socket.write(little);
  await client.until(much.length + little.length);
  t.ok(client.heard().subarray(much.length).equals(little));
  t.ok(client.pieces.length - before > 10, 'in many pieces');

  proxy.slice(0);
  client.socket.end('bye');
  t.equal(await client.closed, 'end', 'the end is passed on after the last word');
  t.equal(String(client.heard().subarray(-3)), 'bye');
});

tap.test('a delay holds each piece back, and a hold everything until the release', async (t) => {
  const { proxy } = await open(t);
  const client = await connect(t, proxy.port);
  proxy.delay(60);
  const asked = performance.now();
  client.socket.write('a');
  await client.until(1);
  t.ok(performance.now() - asked >= 110, 'there and back');
  proxy.delay(0);

  proxy.hold();
  client.socket.write('b');
  const late = await connect(t, proxy.port);
  late.socket.write('c');
  await wait(50);
  t.equal(client.heard().length + late.heard().length, 1, 'connections are taken, nothing passes');
  proxy.release();
  await Promise.all([client.until(2), late.until(1)]);
  t.equal(String(client.heard()), 'ab');
});

tap.test('a cut resets both sides, a dead target resets, a refusing proxy refuses', async (t) => {
  const { proxy, server, taken } = await open(t);
  const client = await connect(t, proxy.port);
  client.socket.write('a');
  await client.until(1);
  t.equal(proxy.connections(), 1);
  const gone = new Promise((resolve) => taken[0]?.once('close', resolve));
  proxy.cut();
  t.equal(await client.closed, 'ECONNRESET');
  await gone;
  t.equal(proxy.connections(), 0);

  server.close();
  const late = await connect(t, proxy.port);
  t.equal(await late.closed, 'ECONNRESET');

  await proxy.refuse();
  const refused = net.connect({ port: proxy.port, host: '127.0.0.1' });
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  t.equal(error.code, 'ECONNREFUSED');
  await proxy.accept();
  const again = await connect(t, proxy.port);
  t.equal(await again.closed, 'ECONNRESET', 'the same port listens again');
});
