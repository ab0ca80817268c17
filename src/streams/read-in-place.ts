import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { createFrameCutter } from './cut-frames.js';

/**
 * A `ws` client whose plain frames are read where the kernel put them: one piece of memory for all sockets, in place of
 * 64 KiB for each read that the garbage collector has to carry away. What is no whole, plain frame goes to `ws`.
 */
export interface InPlaceReads {
  /** An option for `new WebSocket`; for TCP, not for TLS. */
  createConnection(options: object): Socket;
  /** The handshake is over; `head` came right behind its answer, and is read by `ws`. */
  upgraded(head: Buffer): void;
}

export interface InPlaceReader {
  /** A whole frame's text. The bytes are good until the call of `onRead`. */
  onFrame(bytes: Buffer): void;
  /** All that one read brought has been told, to `ws` too. */
  onRead(): void;
}

/** Reads are handled one after another, each to its end, so all sockets can share it. */
const memory = Buffer.allocUnsafeSlow(64 * 1024);

export function createInPlaceReads(reader: InPlaceReader): InPlaceReads {
  let upgraded = false;
  let socket: Socket | null = null;
  const toWs = (bytes: Buffer): void => void socket?.emit('data', Buffer.from(bytes));
  const cutter = createFrameCutter({ frame: reader.onFrame, other: toWs });

  function onRead(bytes: number): boolean {
    const chunk = memory.subarray(0, bytes);
    if (!upgraded) toWs(chunk);
    else {
      cutter.cut(chunk);
      reader.onRead();
    }
    return true;
  }

  return {
    createConnection(options) {
      // The path of the URL would be taken for that of a local socket.
      const target = { ...options, path: undefined } as unknown as NetConnectOpts;
      socket = connect({ ...target, onread: { buffer: memory, callback: onRead } });
      return socket;
    },
    upgraded(head) {
      upgraded = true;
      cutter.pass(head);
    },
  };
}
