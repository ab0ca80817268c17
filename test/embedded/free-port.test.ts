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
