import { isUtf8 } from 'node:buffer';
import { Observable } from 'rxjs';
import type { WebSocket } from 'ws';
import { clearBatch, createFrameBatch, FrameKind, pushFrame } from './frame-batch.js';
import { createInPlaceReads, type InPlaceReads } from './read-in-place.js';
import type { StreamPosition } from './stream-position.js';
import type { SocketSignal } from './stream-signals.js';

/**
 * Where a pipeline gets a thread's frames. It does not know whose socket they came through: one for each
 * thread today, one for many threads later.
 */
export interface RuntimeFrames {
  /** Cold: each subscription is one connection; it completes when that has ended. `null` = from the start. */
  frames(threadId: string, position: StreamPosition | null): Observable<SocketSignal>;
}

export interface RuntimeFramesDeps {
  /** Opens a socket to the run, with `reads` where it can; errors come as its events. */
  open: (request: { threadId: string; position: StreamPosition | null; reads: InPlaceReads }) => WebSocket;
  /** A ping that has no answer when the next one is due ends the connection. */
  pingIntervalMs: number;
  /** A larger frame ends the stream as `oversized`. */
  frameBytes: number;
}

/** One `ws` client for each thread, read in place. Frames of one read come as one batch, in the same turn. */
export function createRuntimeFrames(deps: RuntimeFramesDeps): RuntimeFrames {
  // One batch for all sockets: the frames of one read are gone before those of the next come.
  const batch = createFrameBatch();
  let filling: (() => void) | null = null;
  return {
    frames: (threadId, position) =>
      new Observable<SocketSignal>((subscriber) => {
        let alive = true;
        let done = false;

        const flush = () => {
          if (filling !== flush) return;
          filling = null;
          if (!done) subscriber.next({ type: 'frames', batch });
          clearBatch(batch);
        };
        const finish = (signal: SocketSignal) => {
          if (done) return;
          flush();
          done = true;
          subscriber.next(signal);
          subscriber.complete();
        };

        const push = (data: Buffer, isBinary: boolean) => {
          if (data.length > deps.frameBytes) return finish({ type: 'oversized' });
          // ws was told not to look: it would end the connection, and we only drop the frame.
          const readable = !isBinary && isUtf8(data);
          if (filling !== flush) {
            filling?.();
            filling = flush;
          }
          pushFrame(batch, data, readable ? FrameKind.other : FrameKind.unreadable);
        };

        const reads = createInPlaceReads({ onFrame: (bytes) => push(bytes, false), onRead: flush });
        const socket = deps.open({ threadId, position, reads });

        const ping = setInterval(() => {
          if (socket.readyState !== socket.OPEN) return;
          if (!alive) return socket.terminate();
          alive = false;
          socket.ping();
        }, deps.pingIntervalMs);

        socket.on('message', (data: Buffer, isBinary: boolean) => {
          // Outside of a read in place (TLS, or right behind the handshake) nothing else says that it is over.
          if (filling !== flush) queueMicrotask(flush);
          push(data, isBinary);
        });
        socket.on('open', () => {
          subscriber.next({
            type: 'connected',
            send: (message) => {
              if (socket.readyState !== socket.OPEN) return false;
              socket.send(message, { binary: false });
              return true;
            },
          });
        });
        socket.on('pong', () => {
          alive = true;
        });
        socket.on('unexpected-response', (request, response) => {
          response.resume();
          request.destroy();
          finish({ type: 'refused', status: response.statusCode ?? 0 });
        });
        socket.on('error', (error: Error & { code?: string }) => {
          if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') finish({ type: 'oversized' });
        });
        socket.on('close', (code) => finish({ type: 'closed', code }));

        return () => {
          done = true;
          clearInterval(ping);
          socket.terminate();
        };
      }),
  };
}
