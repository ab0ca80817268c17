import type { Socket } from 'node:net';

/** How pieces are passed on at the moment. */
export interface Way {
  held: boolean;
  delayMs: number;
  sliceBytes: number;
}

/** One direction of a connection. */
export interface Pump {
  /** The way has become free. */
  flush(): void;
}

/** Bytes that wait here before the sender has to. */
const mostWaiting = 256 * 1024;

/** Passes on what `from` says to `to`, in order and in full, its end too, however bad the way is. */
export function createPump(from: Socket, to: Socket, way: Way): Pump {
  const waiting: { due: number; bytes: Buffer | null }[] = [];
  let bytesWaiting = 0;
  let timer: NodeJS.Timeout | null = null;
  let full = false;

  function flushIn(milliseconds: number): void {
    timer ??= setTimeout(() => {
      timer = null;
      flush();
    }, milliseconds);
  }

  function flush(): void {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      if (way.held || full || to.destroyed) return;
      const early = next.due - performance.now();
      if (early > 0) return flushIn(early);
      if (next.bytes === null) {
        waiting.shift();
        to.end();
        return;
      }
      const sliced = way.sliceBytes > 0 && next.bytes.length > way.sliceBytes;
      const piece = sliced ? next.bytes.subarray(0, way.sliceBytes) : next.bytes;
      if (sliced) next.bytes = next.bytes.subarray(piece.length);
      else waiting.shift();
      bytesWaiting -= piece.length;
      full = !to.write(piece);
      // Each slice in a turn of its own, so that it leaves in a packet of its own.
      if (sliced) return flushIn(0);
    }
    if (bytesWaiting < mostWaiting && from.isPaused()) from.resume();
  }

  from.on('data', (bytes: Buffer) => {
    waiting.push({ due: way.delayMs > 0 ? performance.now() + way.delayMs : 0, bytes });
    bytesWaiting += bytes.length;
    if (bytesWaiting >= mostWaiting) from.pause();
    flush();
  });
  from.on('end', () => {
    waiting.push({ due: way.delayMs > 0 ? performance.now() + way.delayMs : 0, bytes: null });
    flush();
  });
  to.on('drain', () => {
    full = false;
    flush();
  });
  to.on('close', () => {
    if (timer !== null) clearTimeout(timer);
    waiting.length = 0;
  });
  return { flush };
}
