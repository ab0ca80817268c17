import type { HttpResponse, us_socket_context_t } from 'uWebSockets.js';
import { STATUS_CODES } from 'node:http';

/** One answer, complete. `body` null sends none. */
export interface Reply {
  status: number;
  headers: Record<string, string>;
  body: string | Buffer | null;
  /** Ends the connection after the answer: for requests whose framing cannot be trusted. */
  close?: boolean;
}

/** What the client asked for when it wanted a WebSocket; copied before the request object dies. */
interface UpgradeHead {
  key: string;
  protocol: string;
  extensions: string;
  context: us_socket_context_t;
}

/** How reading a body ended. */
export type Body =
  | { kind: 'bytes'; bytes: Buffer }
  | { kind: 'too_large' }
  | { kind: 'too_slow' }
  /** The peer went away, or was answered before. */
  | { kind: 'ended' };

/** The only thing that touches a uWS response. After an abort or an answer every call is a no-op. */
export interface Exchange {
  /** The peer's address as text; behind a proxy the proxy's. */
  readonly remoteAddress: string;
  /** False once it was answered, upgraded or aborted. */
  isOpen(): boolean;
  /** Calls back when the peer went away before an answer. */
  onAborted(listener: () => void): void;
  /** Answers once. Returns false where nobody is there to hear it. */
  send(reply: Reply): boolean;
  /** Must be called in the turn of the handler; the limits count while the body arrives. */
  readBody(limits: { bytes: number; deadlineMs: number }): Promise<Body>;
  /** Turns the connection into a WebSocket; `open` of the behaviour runs inside this call. */
  upgrade<Data>(data: Data, head: UpgradeHead, protocol: string): boolean;
}

/** Takes hold of a response. To be called first in every handler: uWS ends the process for a handler that neither answers nor listens for the abort. */
export function openExchange(res: HttpResponse, options: { withoutBody: boolean }): Exchange {
  let open = true;
  const abortListeners: (() => void)[] = [];
  let stopReading = () => {};
  res.onAborted(() => {
    open = false;
    stopReading();
    for (const listener of abortListeners) listener();
  });
  const remoteAddress = Buffer.from(res.getRemoteAddressAsText()).toString('latin1');

  return {
    remoteAddress,
    isOpen: () => open,
    onAborted: (listener) => {
      abortListeners.push(listener);
    },
    send(reply) {
      if (!open) return false;
      open = false;
      stopReading();
      res.cork(() => {
        res.writeStatus(`${reply.status} ${STATUS_CODES[reply.status] ?? 'Unknown'}`);
        for (const [name, value] of Object.entries(reply.headers)) res.writeHeader(name, value);
        if (options.withoutBody) {
          res.endWithoutBody(reply.body === null ? 0 : Buffer.byteLength(reply.body), reply.close ?? false);
        } else if (reply.body === null && (reply.status === 204 || reply.status === 304)) {
          // A 204 must not carry Content-Length (RFC 9110, 8.6).
          res.endWithoutBody(undefined, reply.close ?? false);
        } else {
          res.end(reply.body ?? '', reply.close ?? false);
        }
      });
      return true;
    },
    readBody: (limits) =>
      new Promise((resolve) => {
        const chunks: Buffer[] = [];
        let length = 0;
        let reading = true;
        const settle = (body: Body) => {
          if (!reading) return;
          reading = false;
          clearTimeout(timer);
          resolve(body);
        };
        const timer = setTimeout(() => settle({ kind: 'too_slow' }), limits.deadlineMs);
        // An answer that leaves before the body is complete must not go on collecting it.
        stopReading = () => {
          chunks.length = 0;
          settle({ kind: 'ended' });
        };
        res.onData((chunk, isLast) => {
          if (!reading) return;
          length += chunk.byteLength;
          if (length > limits.bytes) {
            chunks.length = 0;
            settle({ kind: 'too_large' });
            return;
          }
          // uWS takes the chunk's memory back after this callback.
          chunks.push(Buffer.copyBytesFrom(new Uint8Array(chunk)));
          if (isLast) settle({ kind: 'bytes', bytes: Buffer.concat(chunks, length) });
        });
      }),
    upgrade(data, head, protocol) {
      if (!open) return false;
      open = false;
      // Not inside `cork`: after its callback uWS looks at this connection as a response once more, sees what happens to
      // lie in that memory, and now and then ends the fresh socket (6 of 32 tries; 0 of 42 without). The price is a
      // line of warning on stderr that cannot be turned off.
      res.upgrade(data, head.key, protocol, head.extensions, head.context);
      return true;
    },
  };
}

/** Runs a handler's turn so that nothing it throws reaches uWS, which would end the process. */
export function guarded(exchange: Exchange, turn: () => void, onError: (error: unknown) => void): void {
  try {
    turn();
  } catch (error) {
    onError(error);
    exchange.send({ status: 500, headers: {}, body: null, close: true });
  }
}
