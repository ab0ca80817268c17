import { once } from 'node:events';
import net from 'node:net';
import { createPump, type Pump } from './pump.js';

/** A connection's way through us, which can be made as bad as networks are. */
export interface TcpProxy {
  readonly port: number;
  /** Resets every connection. */
  cut(): void;
  /** Passes nothing on until `release`; connections stay open and new ones are taken. */
  hold(): void;
  release(): void;
  /** Each piece is passed on so much later; 0 = at once. */
  delay(milliseconds: number): void;
  /** Passes on at most so many bytes in one write; 0 = as they came. */
  slice(bytes: number): void;
  /** Refuses new connections, as a host does whose server is not there. */
  refuse(): Promise<void>;
  accept(): Promise<void>;
  connections(): number;
  close(): Promise<void>;
}

const host = '127.0.0.1';

/** Listens on a port of 127.0.0.1 and connects whoever comes to `targetPort` there. */
export async function createTcpProxy(options: { port: number; targetPort: number }): Promise<TcpProxy> {
  const open = new Set<{ cut(): void; pumps: Pump[] }>();
  const way = { held: false, delayMs: 0, sliceBytes: 0 };
  const pumps = () => [...open].flatMap((connection) => connection.pumps);

  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = net.connect({ port: options.targetPort, host, allowHalfOpen: true, noDelay: true });
    const there = createPump(near, far, way);
    const back = createPump(far, near, way);
    const connection = {
      pumps: [there, back],
      cut() {
        near.resetAndDestroy();
        far.resetAndDestroy();
        open.delete(connection);
      },
    };
    open.add(connection);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      // A reset of the one side is a reset of the other; a target that is not there is one as well.
      socket.on('error', () => other.resetAndDestroy());
      socket.on('close', () => {
        if (near.destroyed && far.destroyed) open.delete(connection);
        // Whoever is gone for good hears no more: what is still to be said the other way has nobody.
        else if (socket === near) other.destroy();
      });
    }
  });

  let port = options.port;
  const accept = async () => {
    if (server.listening) return;
    server.listen({ port, host });
    await once(server, 'listening');
    port = (server.address() as net.AddressInfo).port;
  };
  await accept();
  return {
    get port() {
      return port;
    },
    cut() {
      for (const connection of open) connection.cut();
    },
    hold() {
      way.held = true;
    },
    release() {
      way.held = false;
      for (const pump of pumps()) pump.flush();
    },
    delay(milliseconds) {
      way.delayMs = milliseconds;
    },
    slice(bytes) {
      way.sliceBytes = bytes;
    },
    async refuse() {
      // Its callback waits for the connections that are open; the listening ends at once.
      if (server.listening) server.close();
    },
    accept,
    connections: () => open.size,
    async close() {
      if (server.listening) server.close();
      for (const connection of open) connection.cut();
    },
  };
}
