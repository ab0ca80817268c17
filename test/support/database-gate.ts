import { connect, createServer, type Socket } from 'node:net';
import { listenAgain, listenOnKeptPort } from './same-port.js';

/**
 * What becomes of PostgreSQL's answers: they come through, are swallowed for as long as this is set, with or without the
 * connection, or are lost with one connection: the next one that commits, or that is answered at all.
 */
type Mode = 'pass' | 'swallow' | 'swallow_and_cut' | 'cut_at_commit' | 'cut_at_answer';

/** A door before PostgreSQL, on a port of its own. */
export interface DatabaseGate {
  url: string;
  set(mode: Mode): void;
  /** Connections that are under way through it. */
  connections(): number;
  /** Cuts the connections of now; new ones are let in. */
  cut(): void;
  /** PostgreSQL is gone: connections are cut, new ones refused. */
  shut(): void;
  open(): Promise<void>;
}

export async function createDatabaseGate(databaseUrl: string): Promise<DatabaseGate> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let mode: Mode = 'pass';
  const server = createServer((socket) => {
    let dying = false;
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
    const dies = (fatal: boolean): void => {
      if (!fatal) return;
      mode = 'pass';
      dying = true;
    };
    socket.on('data', (chunk) => {
      dies(mode === 'cut_at_commit' && chunk.includes('COMMIT'));
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      // A server answers a statement only after its commit.
      dies(mode === 'cut_at_answer');
      if (dying || mode === 'swallow_and_cut') socket.destroy();
      else if (mode !== 'swallow') socket.write(chunk);
    });
  });
  const port = await listenOnKeptPort(server);
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    set(next) {
      mode = next;
    },
    connections: () => sockets.size / 2,
    cut,
    shut() {
      if (server.listening) server.close();
      cut();
    },
    open: () => listenAgain(server, port),
  };
}
