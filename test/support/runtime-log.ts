import { Observable, type Subscriber } from 'rxjs';
import type { RuntimeFrames } from '../../src/streams/runtime-socket.js';
import type { SocketSignal } from '../../src/streams/stream-signals.js';
import { batchOf, frameText } from './frames.js';

/** One connection to the log; nothing leaves before somebody takes it. */
export interface LogConnection {
  /** Brings what is next, up to so many frames in one read; false where there is nothing. */
  take(frames: number): boolean;
  cut(): void;
}

/** The event log of one run, in memory: it is the list that the runtime sent. */
export interface RuntimeLog {
  readonly epoch: number;
  readonly last: number;
  append(kind: string, data: Record<string, unknown>): void;
  /** The process was killed: all connections are cut, and the log begins anew with the whole state. */
  loseLog(): void;
  /** So many of the oldest frames are not held any more: connections that are behind are closed. */
  trim(frames: number): void;
  /** Frames of each epoch by number; what was trimmed stays. */
  readonly sent: ReadonlyMap<number, ReadonlyMap<number, string>>;
  /** A port to the log, and the connection that is open through it. */
  port(): RuntimeFrames & { connection(): LogConnection | null };
}

export function createRuntimeLog(): RuntimeLog {
  let epoch = 1;
  let first = 1;
  let frames: string[] = [];
  const sent = new Map<number, Map<number, string>>([[1, new Map()]]);
  const connections = new Set<LogConnection & { readonly next: number }>();
  const last = () => first + frames.length - 1;
  const isOver = () => frames.at(-1)?.includes('"event_type":"end"') ?? false;

  function append(kind: string, data: Record<string, unknown>): void {
    const text = frameText(last() + 1, kind, data);
    sent.get(epoch)?.set(last() + 1, text);
    frames.push(text);
  }

  function connect(
    subscriber: Subscriber<SocketSignal>,
    position: Parameters<RuntimeFrames['frames']>[1],
    closed: () => void,
  ): LogConnection {
    let opened = false;
    const isOurs = position !== null && (position.epoch ?? epoch) === epoch && position.after <= last();
    let next = Math.max(isOurs ? position.after + 1 : 1, first);
    const read = (texts: string[]) => subscriber.next({ type: 'frames', batch: batchOf(texts) });
    const close = (code: number) => {
      if (!connections.delete(connection)) return;
      closed();
      subscriber.next({ type: 'closed', code });
      subscriber.complete();
    };
    const connection = {
      get next() {
        return next;
      },
      take(count: number): boolean {
        const texts = opened ? [] : [frameText(0, 'on_open', { epoch, first_seq: first, last_seq: last() })];
        opened = true;
        for (; texts.length < count && next <= last(); next++) texts.push(frames[next - first] as string);
        if (texts.length === 0) return false;
        read(texts);
        if (isOver() && next > last()) close(1000);
        return true;
      },
      cut: () => close(1006),
    };
    connections.add(connection);
    subscriber.next({ type: 'connected', send: () => true });
    return connection;
  }

  return {
    get epoch() {
      return epoch;
    },
    get last() {
      return last();
    },
    append,
    loseLog() {
      const ended = isOver();
      epoch++;
      first = 1;
      frames = [];
      sent.set(epoch, new Map());
      append('on_state_update', { epoch, files: {} });
      if (ended) append('end', {});
      for (const connection of [...connections]) connection.cut();
    },
    trim(count) {
      const going = Math.min(count, frames.length - 1);
      if (going <= 0) return;
      frames = frames.slice(going);
      first += going;
      for (const connection of [...connections]) if (connection.next < first) connection.cut();
    },
    sent,
    port() {
      let open: LogConnection | null = null;
      return {
        connection: () => open,
        frames: (_threadId, position) =>
          new Observable((subscriber) => {
            const connection = connect(subscriber, position, () => {
              open = null;
            });
            open = connection;
            return () => {
              connections.delete(connection as LogConnection & { readonly next: number });
              if (open === connection) open = null;
            };
          }),
      };
    },
  };
}
