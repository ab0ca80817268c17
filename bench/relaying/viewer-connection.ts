import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { createFrameReader, type FrameHearing } from './frame-reader.js';

export interface ViewerConnectionOptions {
  port: number;
  path: string;
  headers: Readonly<Record<string, string>>;
  hearing: Omit<FrameHearing, 'ping'>;
  /** The upgrade was answered with 101. */
  onOpen: () => void;
  /** The connection is gone, for whatever reason. */
  onGone: (reason: string) => void;
}

/** All connections of this process read into the same memory: nothing of it is kept beyond the turn. */
const shared = Buffer.allocUnsafe(256 * 1024);
const headEnd = '\r\n\r\n';
/** An empty pong, masked with zeros. */
const pong = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

/** Opens one viewer's WebSocket on 127.0.0.1, on a bare TCP socket. */
export function openViewer(options: ViewerConnectionOptions): { destroy(): void } {
  let head: string | null = '';
  let reason = 'the connection was cut';
  const reader = createFrameReader({ ...options.hearing, ping: () => void socket.write(pong) });

  function take(length: number): void {
    if (head === null) return reader.take(shared, 0, length);
    // The first frames may come with the answer to the upgrade.
    const before = head.length;
    head += shared.toString('latin1', 0, length);
    const end = head.indexOf(headEnd);
    if (end < 0) return;
    if (!head.startsWith('HTTP/1.1 101')) {
      reason = `the upgrade was answered with ${head.slice(0, head.indexOf('\r\n'))}`;
      socket.destroy();
      return;
    }
    head = null;
    options.onOpen();
    reader.take(shared, end + headEnd.length - before, length);
  }

  const socket = net.connect({
    port: options.port,
    host: '127.0.0.1',
    onread: {
      buffer: shared,
      callback(length) {
        take(length);
        return true;
      },
    },
  });
  socket.setNoDelay(true);
  socket.on('connect', () => {
    const lines = Object.entries(options.headers).map(([name, value]) => `${name}: ${value}`);
    socket.write(
      [
        `GET ${options.path} HTTP/1.1`,
        `Host: 127.0.0.1:${options.port}`,
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
        ...lines,
        '\r\n',
      ].join('\r\n'),
    );
  });
  socket.on('error', (error) => {
    reason = error.message;
  });
  socket.on('end', () => socket.destroy());
  socket.on('close', () => options.onGone(reason));
  return { destroy: () => void socket.destroy() };
}
