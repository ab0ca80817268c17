import net from 'node:net';

type Mode = 'pass' | 'swallow_and_cut' | 'swallow' | 'cut_at_commit';

/**
 * A TCP proxy before PostgreSQL that can swallow what the server answers, then cut the connection or leave it hanging.
 * `cut_at_commit` does so to the next connection that commits, and to no other.
 */
export const createAnswerProxy = async (target: URL) => {
  let mode: Mode = 'pass';
  const sockets = new Set<net.Socket>();
  const server = net.createServer((client) => {
    let dying = false;
    const upstream = net.connect(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on('data', (chunk) => {
      if (mode === 'cut_at_commit' && chunk.includes('COMMIT')) {
        mode = 'pass';
        dying = true;
      }
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      // The server answers a statement only after its commit.
      if (dying || mode === 'swallow_and_cut') client.destroy();
      else if (mode !== 'swallow') client.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const proxied = new URL(target);
  proxied.port = String((server.address() as net.AddressInfo).port);
  return {
    url: proxied.toString(),
    set: (next: Mode) => {
      mode = next;
    },
    /** Connections that are under way through it. */
    connections: () => sockets.size / 2,
    /** Cuts the connections of now. */
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
};
