import fs from 'node:fs';
import net from 'node:net';

const lowest = 10_000;

/** The system hands out ports from here on, for connections that go out and to whoever listens on any. */
const handedOutFrom = (): number => {
  try {
    const range = fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    return Number.parseInt(range, 10) || 32_768;
  } catch {
    return 32_768;
  }
};

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => resolve(true)));
  });

/**
 * The remembered port of 127.0.0.1 if nobody listens there now, else any free one. It lies outside of the range from which
 * the system gives ports to others: whoever dies comes back there, and would find it taken by a connection of somebody's.
 */
export const findFreePort = async (remembered?: number): Promise<number> => {
  if (remembered !== undefined && (await isFree(remembered))) return remembered;
  const count = Math.max(handedOutFrom(), lowest + 2_000) - lowest;
  for (let tries = 0; tries < 200; tries += 1) {
    const port = lowest + Math.floor(Math.random() * count);
    if (await isFree(port)) return port;
  }
  throw new Error('No free port on 127.0.0.1');
};
