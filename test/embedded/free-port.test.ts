import fs from 'node:fs';
import net from 'node:net';
import t from 'tap';
import { findFreePort } from '../../src/embedded/free-port.js';

t.test('a remembered port is used again while nobody else listens there', async (t) => {
  const usesAgain = async () => {
    const port = await findFreePort();
    return (await findFreePort(port)) === port;
  };
  // Somebody else may take it just then.
  t.ok((await usesAgain()) || (await usesAgain()) || (await usesAgain()));
});

t.test('a remembered port that is taken is replaced by another', async (t) => {
  const other = net.createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.teardown(() => other.close());
  const taken = (other.address() as net.AddressInfo).port;
  t.not(await findFreePort(taken), taken);
});

t.test(
  'a free port is none that the system hands out to others while its owner is being started again',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const range = fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    const from = Math.max(Number.parseInt(range, 10), 12_000);
    for (let count = 0; count < 20; count++) t.ok((await findFreePort()) < from);
  },
);
