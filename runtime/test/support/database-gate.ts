import { connect, createServer, type Socket } from 'node:net';
import { listenAgain, listenOnKeptPort } from './kept-port.js';

export interface DatabaseGate {
  /** The database's address through the gate. */
  url: string;
  /** PostgreSQL is gone: its connections are cut, new ones refused. */
  close(): void;
  open(): Promise<void>;
  /** Cuts what is there, once; who connects again is let in. */
  cut(): void;
  /** From now on nothing that PostgreSQL answers comes through. */
  swallowAnswers(): void;
  stop(): void;
}

/** A door between the runtime and PostgreSQL, on a port of its own. */
export async function createDatabaseGate(databaseUrl: string): Promise<DatabaseGate> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let swallows = false;
  const server = createServer((socket) => {
    const upstream = connect(Number(target.port || 5432), target.hostname);
    for (const end of [socket, upstream]) {
      sockets.add(end);
      end.on('error', () => {});
      end.on('close', () => {
        sockets.delete(end);
        socket.destroy();
        upstream.destroy();
      });
    }
    socket.pipe(upstream);
    upstream.on('data', (data) => {
      if (!swallows) socket.write(data);
    });
  });
  const port = await listenOnKeptPort(server);
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const close = (): void => {
    if (server.listening) server.close();
    cut();
  };
  return {
    url: url.href,
    close,
    async open() {
      swallows = false;
      await listenAgain(server, port);
    },
    cut,
    swallowAnswers() {
      swallows = true;
    },
    stop: close,
  };
}
