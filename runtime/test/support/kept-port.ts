import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Server } from 'node:net';
import { eventually } from './eventually.js';

/** The system hands out ports from here on, for connections and to whoever asks for any. */
function handedOutFrom(): number {
  try {
    const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    return Math.max(Number.parseInt(range, 10) || 32_768, 12_000);
  } catch {
    return 32_768;
  }
}

async function listens(server: Server, port: number): Promise<boolean> {
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
}

/** Listens on a port of 127.0.0.1 that the server may give up and take again: nobody is given it meanwhile. */
export async function listenOnKeptPort(server: Server): Promise<number> {
  const range = handedOutFrom() - 10_000;
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * range);
    if (await listens(server, port)) return port;
  }
}

/** Listens there again. Another test may have drawn the same port, and is waited for. */
export const listenAgain = (server: Server, port: number): Promise<void> =>
  eventually(`port ${port} is free`, () => listens(server, port));
