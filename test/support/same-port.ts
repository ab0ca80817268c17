import { once } from 'node:events';
import type { Server } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { createFixedPorts } from '../../chaos/house/fixed-port.js';
import { PATIENCE_MS } from './until.js';

/**
 * A port of 127.0.0.1 that may be given up and taken again: none of those that the system hands out for connections and to
 * whoever asks for any port, or it might be another's by then.
 */
export const nextKeptPort = createFixedPorts();

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

/** Listens on a port of 127.0.0.1 that the server may give up and take again. */
export async function listenOnKeptPort(server: Server): Promise<number> {
  for (;;) {
    const port = await nextKeptPort();
    if (await listens(server, port)) return port;
  }
}

/** Listens there again. Another test may have drawn the same port, and is waited for. */
export async function listenAgain(server: Server, port: number): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await listens(server, port))) {
    if (performance.now() > deadline) throw new Error(`port ${port} has been taken by somebody else`);
    await wait(50);
  }
}
