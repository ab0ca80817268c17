import type { PartNews, ReaderOrder, ReaderReport } from '../house/messages.js';
import { microsNow } from '../load/frame-maker.js';
import { createLatencies } from './latencies.js';
import { openViewer } from './viewer-connection.js';

interface Seat {
  thread: number;
  /** Highest number that came. */
  seq: number;
  greeted: boolean;
  ended: boolean;
  gone: boolean;
}

const AT_ONCE = 50;
const PROGRESS_MS = 4;
/** One frame in so many is timed where frames come in floods; all of them are checked. */
const TIMED_EVERY = 8;

/** Opens all viewers of one round and says when they are there, how far they are, and what was wrong. */
export function watchThreads(order: ReaderOrder, tell: (news: PartNews) => void): void {
  const { frames } = order;
  const seats: Seat[] = [];
  const latencies = createLatencies();
  const counts = new Array<number>(order.threads).fill(0);
  let now = microsNow();
  let sinceTimed = 0;
  let got = 0;
  let lost = 0;
  let cut = 0;
  let connected = 0;
  let arrived = 0;
  let ended = 0;
  let moved = false;

  const report = (): ReaderReport => ({ frames: got, lost, cut, latency: latencies.summary() });
  const connectedOne = (seat: Seat) => {
    if (seat.greeted) return;
    seat.greeted = true;
    if (++connected === order.viewers.length) tell({ type: 'connected' });
    openNext();
  };
  const endedOne = (seat: Seat) => {
    if (seat.ended) return;
    seat.ended = true;
    if (++ended < order.viewers.length) return;
    clearInterval(progress);
    tell({ type: 'ended', report: report() });
  };

  function takeNumber(seat: Seat, seq: number, stamp: number): void {
    got++;
    moved = true;
    if (seq === seat.seq + 1) seat.seq = seq;
    else {
      lost += seq > seat.seq ? seq - seat.seq - 1 : 1;
      seat.seq = Math.max(seq, seat.seq);
    }
    if (stamp > 0 && ++sinceTimed >= TIMED_EVERY) {
      sinceTimed = 0;
      now = microsNow();
      latencies.add(now - stamp);
    }
    if (seq === frames && ++arrived === order.viewers.length) {
      sendProgress();
      tell({ type: 'arrived', report: report() });
    }
  }

  let next = 0;
  function openNext(): void {
    const viewer = order.viewers[next++];
    if (viewer === undefined) return;
    const seat: Seat = { thread: viewer.thread, seq: 0, greeted: false, ended: false, gone: false };
    seats.push(seat);
    const connection = openViewer({
      port: order.port,
      path: viewer.path,
      headers: order.headers,
      onOpen: () => {
        if (!order.greeted) connectedOne(seat);
      },
      hearing: {
        numbered(seq, kind, stamp) {
          takeNumber(seat, seq, stamp);
          if (kind === 'end') endedOne(seat);
        },
        unnumbered(head) {
          connectedOne(seat);
          // A range that is told as skipped is a loss here: the reader is never slow.
          if (head.includes('"on_skipped"') || head.includes('"on_reset"')) lost++;
        },
        close: () => connection.destroy(),
      },
      onGone(reason) {
        seat.gone = true;
        if (seat.ended) return;
        if (!seat.greeted) return tell({ type: 'failed', reason });
        cut++;
        endedOne(seat);
      },
    });
  }

  /** How far the slowest viewer of each thread is. */
  function sendProgress(): void {
    if (!moved) return;
    moved = false;
    counts.fill(Number.MAX_SAFE_INTEGER);
    for (const { thread, seq } of seats) counts[thread] = Math.min(counts[thread] ?? 0, seq);
    tell({ type: 'progress', counts });
  }
  const progress = setInterval(sendProgress, PROGRESS_MS);
  for (let index = 0; index < AT_ONCE; index++) openNext();
}
