import fs from 'node:fs';
import net from 'node:net';

/**
 * Whoever is killed comes back at its port, which nobody may take meanwhile. So it lies outside of the range from which
 * the system gives ports to connections that go out.
 */
const outgoing = /^(\d+)\s/;

function below(): number {
  try {
    const range = fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    return Number(outgoing.exec(range)?.[1] ?? 32_768);
  } catch {
    return 32_768;
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => resolve(true)));
  });

/** Gives out ports of 127.0.0.1 on which nobody listens, each once. */
export function createFixedPorts(): () => Promise<number> {
  const high = Math.max(below(), 12_000);
  const given = new Set<number>();
  return async () => {
    for (let tries = 0; tries < 200; tries++) {
      const port = 10_000 + Math.floor(Math.random() * (high - 10_000));
      if (given.has(port) || !(await isFree(port))) continue;
      given.add(port);
      return port;
    }
    throw new Error('No free port on 127.0.0.1');
  };
}
