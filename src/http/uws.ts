import type { TemplatedApp, us_listen_socket } from 'uWebSockets.js';

type Uws = typeof import('uWebSockets.js');
/** The options are taken beside a host too, which the package's own types leave out. */
type Listen = (
  host: string,
  port: number,
  options: number,
  done: (socket: us_listen_socket | false) => void,
) => void;

/** LIBUS_LISTEN_EXCLUSIVE_PORT: the types name it, the binary does not export it. */
const exclusivePort = 1;

/**
 * The only place where uWebSockets.js is loaded. It reads its own limit of headers when it is loaded, and applies it
 * to requests that come in pieces; ours (`request-head.ts`) holds for all, so the two are made the same.
 */
export async function loadUws(options: { headerBytes: number }): Promise<Uws> {
  process.env.UWS_HTTP_MAX_HEADERS_SIZE = String(options.headerBytes);
  return (await import('uWebSockets.js')).default;
}

/** Listens on a port that nobody else has: by default two processes could share it and each get half of the requests. */
export function listenOn(
  uws: Uws,
  app: TemplatedApp,
  host: string,
  port: number,
): Promise<{ port: number; close: () => void }> {
  return new Promise((resolve, reject) => {
    (app.listen as unknown as Listen).call(app, host, port, exclusivePort, (socket) => {
      if (socket === false) {
        reject(Object.assign(new Error(`cannot listen on ${host}:${port}`), { code: 'EADDRINUSE' }));
        return;
      }
      resolve({ port: uws.us_socket_local_port(socket), close: () => uws.us_listen_socket_close(socket) });
    });
  });
}
