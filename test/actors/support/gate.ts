import { connect, createServer, type Socket } from 'node:net';
import { listenAgain, listenOnKeptPort } from '../../support/same-port.js';

/** A door before PostgreSQL, on a port of its own. */
export interface Gate {
  url: string;
  /** The next answer that comes is the last thing its connection knows: it is swallowed and the connection cut. */
  loseNextAnswer(): void;
  /** PostgreSQL is gone: connections are cut, new ones refused. */
  shut(): void;
  open(): Promise<void>;
  stop(): void;
}

export async function createGate(databaseUrl: string): Promise<Gate> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let loses = false;
  const server = createServer((socket) => {
    const upstream = connect(Number(target.port), target.hostname);
    for (const end of [socket, upstream]) {
      sockets.add(end);
      end.on('error', () => undefined);
      end.on('close', () => {
        sockets.delete(end);
        socket.destroy();
        upstream.destroy();
      });
    }
    socket.on('data', (data) => upstream.write(data));
    upstream.on('data', (data) => {
      // A server answers a statement only after its commit.
      if (loses) {
        loses = false;
        socket.destroy();
      } else socket.write(data);
    });
  });
  const port = await listenOnKeptPort(server);
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  const shut = (): void => {
    if (server.listening) server.close();
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    loseNextAnswer() {
      loses = true;
    },
    shut,
    open: () => listenAgain(server, port),
    stop: shut,
  };
}
