import type { WebSocket } from 'uWebSockets.js';
import { createFrameMaker, type FrameMaker, microsNow, roleOf } from './frame-maker.js';

/** Of one open stream. */
export interface StreamData {
  threadId: string;
  /** Number of the next frame to send. */
  next: number;
}
type Stream = WebSocket<StreamData>;

/** A run that never ran: any of its frames can be made at any time, so nothing is kept. */
interface LoadThread {
  readonly id: string;
  /** Frames before the last state update and `end`. */
  total: number;
  /** Frames that exist already. */
  released: number;
  /** Lowest number that all viewers have; what is sent stays within `credit` of it. */
  taken: number;
  credit: number;
  cancelled: boolean;
  streams: Set<Stream>;
  /** When its next frame is due, ms; only while it is paced. */
  due: number;
}

/** How threads send that nobody commands: from their first stream on, to their end. */
export interface AutoPace {
  frames: number;
  perSecond: number;
}

export interface LoadThreads {
  get(id: string): LoadThread | undefined;
  /** The same id again is the same run. */
  begin(id: string): LoadThread;
  forget(id: string): boolean;
  opened(thread: LoadThread, stream: Stream): void;
  closed(thread: LoadThread | undefined, stream: Stream): void;
  pump(stream: Stream): void;
  /** As fast as it is taken. `credit` frames at most are under way on each thread. */
  flood(ids: readonly string[], frames: number, credit: number): void;
  taken(ids: readonly string[], counts: readonly number[]): void;
  /** `perSecond` frames on each thread, each in a send of its own, spread evenly over all threads. */
  pace(ids: readonly string[], frames: number, perSecond: number): void;
  end(ids: readonly string[]): void;
  cancel(thread: LoadThread): void;
  openStreams(): number;
  stop(): void;
}

/** Bytes of one stream that may wait in this process. */
const BUFFERED = 256 * 1024;
const BURST = 20;
const TICK_MS = 1;

export function createLoadThreads(auto: AutoPace | null): LoadThreads {
  const maker: FrameMaker = createFrameMaker();
  const threads = new Map<string, LoadThread>();
  /** All paced threads have one period, so that the queue stays in order of `due`. */
  const paced: LoadThread[] = [];
  const running = new Set<LoadThread>();
  let periodMs = auto === null ? 50 : 1000 / auto.perSecond;
  let open = 0;

  /** Sends what may be sent now; true where the stream could take more at once. */
  function burst(thread: LoadThread, stream: Stream): boolean {
    const data = stream.getUserData();
    const until = Math.min(thread.released, thread.taken + thread.credit, data.next + BURST - 1);
    if (data.next > until || stream.getBufferedAmount() > BUFFERED) return false;
    const stamp = microsNow();
    stream.cork(() => {
      for (; data.next <= until; data.next++) {
        stream.send(maker.make(data.next, roleOf(data.next, thread.total, thread.cancelled), stamp), false);
      }
    });
    if (data.next <= thread.total + 2) return true;
    stream.end(1000, 'done');
    return false;
  }

  function pump(stream: Stream): void {
    const thread = threads.get(stream.getUserData().threadId);
    while (thread !== undefined && burst(thread, stream));
  }

  /** Round and round, so that no thread of a flood waits for another to be done. */
  let turning = false;
  function turn(): void {
    turning = false;
    let more = false;
    for (const thread of running) {
      for (const stream of thread.streams) more = burst(thread, stream) || more;
    }
    if (more) turnSoon();
  }
  function turnSoon(): void {
    if (turning) return;
    turning = true;
    setImmediate(turn);
  }

  function release(thread: LoadThread): void {
    thread.released++;
    for (const stream of thread.streams) {
      const data = stream.getUserData();
      if (data.next !== thread.released) {
        pump(stream);
        continue;
      }
      const role = roleOf(data.next, thread.total, thread.cancelled);
      stream.send(maker.make(data.next, role, microsNow()), false);
      data.next++;
    }
  }

  function end(thread: LoadThread): void {
    thread.released = thread.total + 2;
    thread.credit = Number.POSITIVE_INFINITY;
    running.delete(thread);
    for (const stream of [...thread.streams]) pump(stream);
  }

  const timer = setInterval(() => {
    const now = performance.now();
    for (let first = paced[0]; first !== undefined && first.due <= now; first = paced[0]) {
      paced.shift();
      if (first.released >= first.total) {
        if (auto !== null) end(first);
        continue;
      }
      release(first);
      first.due += periodMs;
      paced.push(first);
    }
  }, TICK_MS);

  const known = (ids: readonly string[]): LoadThread[] =>
    ids.map((id) => threads.get(id)).filter((thread) => thread !== undefined);

  return {
    get: (id) => threads.get(id),
    begin(id) {
      let thread = threads.get(id);
      if (thread !== undefined) return thread;
      const credit = Number.POSITIVE_INFINITY;
      const streams = new Set<Stream>();
      const total = auto?.frames ?? Number.MAX_SAFE_INTEGER;
      thread = { id, total, released: 0, taken: 0, credit, cancelled: false, streams, due: 0 };
      threads.set(id, thread);
      return thread;
    },
    forget(id) {
      const thread = threads.get(id);
      if (thread === undefined) return false;
      running.delete(thread);
      threads.delete(id);
      for (const stream of [...thread.streams]) stream.close();
      return true;
    },
    opened(thread, stream) {
      open++;
      if (auto !== null && thread.due === 0) {
        thread.due = performance.now() + periodMs;
        paced.push(thread);
      }
      const data = { epoch: 1, first_seq: 1, last_seq: thread.released };
      stream.send(JSON.stringify({ event_type: 'on_open', data }), false);
      thread.streams.add(stream);
      pump(stream);
    },
    pump,
    flood(ids, frames, credit) {
      for (const thread of known(ids)) {
        Object.assign(thread, { total: frames, released: frames, credit });
        running.add(thread);
      }
      turnSoon();
    },
    taken(ids, counts) {
      for (const [index, id] of ids.entries()) {
        const thread = threads.get(id);
        if (thread !== undefined) thread.taken = counts[index] ?? 0;
      }
      turnSoon();
    },
    pace(ids, frames, perSecond) {
      periodMs = 1000 / perSecond;
      const from = performance.now();
      for (const [index, thread] of known(ids).entries()) {
        thread.total = frames;
        thread.due = from + (index * periodMs) / ids.length;
        paced.push(thread);
      }
    },
    end: (ids) => known(ids).forEach(end),
    cancel(thread) {
      if (thread.cancelled || thread.released > thread.total) return;
      thread.cancelled = true;
      thread.total = thread.released;
      end(thread);
    },
    closed(thread, stream) {
      open--;
      thread?.streams.delete(stream);
    },
    openStreams: () => open,
    stop: () => clearInterval(timer),
  };
}
