import type { OnSubscribedData } from '@ide-orchestrator/protocol';
import type { FrameBatch } from './frame-batch.js';
import { ownFrame } from './own-frames.js';
import type { NumberedFrame, ReplayWindow } from './replay-window.js';
import type { Publish, Viewer, ViewerPosition } from './viewer.js';

/** The stored end of a thread, byte for byte the same on every replica: newest state?, error?, end. */
export interface LastFrames {
  epoch: string;
  frames: NumberedFrame[];
}

/** What `on_subscribed` says beside the position. */
export type SubscribedFacts = Pick<OnSubscribedData, 'thread_id' | 'proposal_id' | 'status' | 'phase'>;

export interface Member {
  /** Call when the viewer's socket has room again. */
  drained(): void;
  leave(): void;
}

/** All viewers of one thread on this replica: those that keep up read a topic, the others are served one by one. */
export interface FanOut {
  /** Sends released frames of one read; frames are in the window already. */
  publish(batch: FrameBatch, from: number, to: number): void;
  /** An own frame (never numbered) to everybody. */
  announce(frame: Parameters<typeof ownFrame>[0]): void;
  /** Numbers that will never come. */
  skip(first: number, last: number): void;
  /** Another epoch begins: everybody is told, and frames follow from 1. */
  beginEpoch(epoch: string, told: Parameters<typeof ownFrame>[0] | null): void;
  /** The stored last frames: everybody gets what it lacks, then these, then 1000. */
  finish(last: LastFrames): void;
  /** `on_subscribed`, what the viewer missed, then the run. */
  join(viewer: Viewer, position: ViewerPosition, facts: SubscribedFacts, trusted: boolean): Member;
  /** Tells viewers that stand beyond `newest`, the runtime's word on its log, that their position means nothing. */
  resetStrays(newest: number): void;
  /** Closes viewers that have taken nothing for too long. */
  sweep(now: number): void;
  closeAll(code: number, reason: string): void;
  /** The epoch that viewers are served; once finished, that of the last frames. */
  epoch(): string;
  lastReleased(): number;
  viewers(): Iterable<Viewer>;
  size(): number;
}

interface Seat {
  viewer: Viewer;
  /** What `position` counts in: another than the thread's while the end is in an epoch that it has not reached. */
  epoch: string;
  /** Last number that this viewer has or was told of; only kept true while it is not live. */
  position: number;
  /** Reads the topic. */
  live: boolean;
  /** Since when it has taken nothing although something waits; null while it takes. */
  stuckSince: number | null;
  /** Bytes that waited when it was looked at last. */
  waiting: number;
  gone: boolean;
}

export interface FanOutDeps {
  topic: string;
  firstEpoch: string;
  epoch: string;
  window: ReplayWindow;
  publish: Publish;
  /** Bytes that may wait for a viewer before it is taken off the topic. */
  budgetBytes: number;
  /** A viewer that takes nothing for this long is closed with 4408. */
  stuckMs: number;
  now: () => number;
  onResume: (recovery: 'exact' | 'compacted' | 'reset') => void;
  onSlowClose: () => void;
}

/** The largest head of a WebSocket frame from a server. */
const FRAME_HEADER = 10;

export function createFanOut(deps: FanOutDeps): FanOut {
  const { topic, window, budgetBytes } = deps;
  const seats = new Set<Seat>();
  let live = 0;
  /** Bytes put on the topic since the viewers were looked at, and the most that waited for one of them then. */
  let published = 0;
  let fullest = 0;
  let epoch = deps.epoch;
  /** The epoch that the window holds. */
  let readEpoch = deps.epoch;
  let released = 0;
  /** The last number of the newest hole that will never be filled. */
  let holeEnd = 0;
  let final: LastFrames | null = null;

  function nextFrame(of: string, after: number): NumberedFrame | null {
    let best: NumberedFrame | null = null;
    if (of === readEpoch) {
      best = window.next(after);
      const state = window.newestState();
      if (state !== null && state.number > after && (best === null || state.number < best.number))
        best = state;
    }
    if (final !== null && final.epoch === of) {
      const ending = final.frames.find((frame) => frame.number > after);
      if (ending !== undefined && (best === null || ending.number < best.number)) best = ending;
    }
    return best;
  }

  function slow(seat: Seat): void {
    deps.onSlowClose();
    drop(seat, 4408, JSON.stringify({ epoch: seat.epoch, seq: seat.position }));
  }

  function drop(seat: Seat, code: number, reason: string): void {
    leave(seat);
    seat.viewer.close(code, reason);
  }

  function leave(seat: Seat): void {
    if (seat.gone) return;
    seat.gone = true;
    if (seat.live) {
      seat.live = false;
      live--;
      seat.viewer.unsubscribe(topic);
    }
    seats.delete(seat);
  }

  function send(seat: Seat, message: Buffer | string): boolean {
    if (seat.viewer.send(message) !== 2) return true;
    slow(seat);
    return false;
  }

  function tellSkipped(seat: Seat, upTo: number): boolean {
    if (upTo <= seat.position) return true;
    const range = { first_seq: seat.position + 1, last_seq: upTo };
    if (!send(seat, ownFrame({ event_type: 'on_skipped', data: range }))) return false;
    seat.position = upTo;
    return true;
  }

  /** Sends what the viewer lacks as fast as it takes it; at the end of the window it goes on the topic. */
  function catchUp(seat: Seat): void {
    seat.viewer.cork(() => {
      while (!seat.gone && !seat.live) {
        if (overBudget(seat)) return;
        const frame = nextFrame(seat.epoch, seat.position);
        if (frame !== null) {
          if (!tellSkipped(seat, frame.number - 1) || !send(seat, frame.bytes)) return;
          seat.position = frame.number;
        } else if (seat.epoch !== epoch) {
          // The run was ended by us, in an epoch of its own.
          if (!beginAgain(seat, 'run_closed')) return;
        } else if (final !== null) {
          if (seat.position <= standing()) return drop(seat, 1000, 'done');
          if (!beginAgain(seat, 'position_unknown')) return;
        } else if (seat.position < released) {
          if (!tellSkipped(seat, released)) return;
        } else if (seat.position === released) {
          seat.live = true;
          live++;
          fullest = Math.max(fullest, seat.viewer.bufferedBytes());
          seat.viewer.subscribe(topic);
        } else return; // ahead of everything that was released here: it waits
      }
    });
  }

  /** Something waits, and too much of it; a viewer that takes any of it is not stuck. */
  function overBudget(seat: Seat): boolean {
    const waiting = seat.viewer.bufferedBytes();
    if (waiting <= budgetBytes) {
      seat.stuckSince = null;
      return false;
    }
    if (seat.stuckSince === null || waiting < seat.waiting) seat.stuckSince = deps.now();
    seat.waiting = waiting;
    return true;
  }

  /** What the viewer has means nothing: everything from 1, in the epoch of now. */
  function beginAgain(seat: Seat, reason: string): boolean {
    seat.epoch = epoch;
    seat.position = 0;
    return send(seat, ownFrame({ event_type: 'on_reset', data: { epoch, reason } }));
  }

  function takeOffTopic(seat: Seat): void {
    seat.live = false;
    live--;
    seat.position = released;
    seat.viewer.unsubscribe(topic);
  }

  /** The topic drops without a word what has no room: who is over budget leaves it first. */
  function keepThoseWithRoom(): void {
    // What waits cannot have grown by more than what was published, so most frames need not ask for it.
    if (live === 0 || fullest + published <= budgetBytes) return;
    fullest = 0;
    published = 0;
    for (const seat of seats) {
      if (!seat.live) continue;
      const waiting = seat.viewer.bufferedBytes();
      if (waiting > budgetBytes) takeOffTopic(seat);
      else fullest = Math.max(fullest, waiting);
    }
  }

  function toTopic(message: Buffer | string): void {
    published += message.length + FRAME_HEADER;
    deps.publish(topic, message);
  }

  function publish(batch: FrameBatch, from: number, to: number): void {
    keepThoseWithRoom();
    if (live > 0) {
      for (let index = from; index < to; index++) toTopic(batch.frames[index] as Buffer);
    }
    for (let index = to - 1; index >= from; index--) {
      const number = batch.numbers[index] ?? 0;
      if (number === 0) continue;
      released = number;
      break;
    }
    catchUpAll();
  }

  function catchUpAll(): void {
    if (live < seats.size) for (const seat of [...seats]) if (!seat.live) catchUp(seat);
  }

  function announce(frame: Parameters<typeof ownFrame>[0]): void {
    keepThoseWithRoom();
    const text = ownFrame(frame);
    if (live > 0) toTopic(text);
    for (const seat of [...seats]) if (!seat.live) send(seat, text);
  }

  /** The newest number that viewers of the present epoch can have. */
  function standing(): number {
    return final === null ? released : (final.frames.at(-1)?.number ?? 0);
  }

  /** Whether every number above `after` is here: the window may keep a state whose neighbours have gone. */
  function isWhole(after: number): boolean {
    let reached = after;
    if (epoch === readEpoch && after < released) {
      if (after < holeEnd || window.next(after)?.number !== after + 1) return false;
      reached = released;
    }
    for (const { number } of final?.frames ?? []) {
      if (number <= reached) continue;
      if (number !== reached + 1) return false;
      reached = number;
    }
    return true;
  }

  function judge(position: ViewerPosition): { recovery: 'exact' | 'compacted' | 'reset'; after: number } {
    const { after = 0 } = position;
    const foreign = position.after !== undefined && (position.epoch ?? deps.firstEpoch) !== epoch;
    if (foreign || after > standing()) return { recovery: 'reset', after: 0 };
    return { recovery: isWhole(after) ? 'exact' : 'compacted', after };
  }

  return {
    publish,
    announce,
    skip(first, last) {
      holeEnd = last;
      keepThoseWithRoom();
      if (live > 0) {
        toTopic(ownFrame({ event_type: 'on_skipped', data: { first_seq: first, last_seq: last } }));
      }
      released = last;
      catchUpAll();
    },
    beginEpoch(next, told) {
      epoch = next;
      readEpoch = next;
      released = 0;
      holeEnd = 0;
      window.clear();
      // Before it is told: a viewer that drops the telling comes back for all of the new epoch.
      for (const seat of seats) Object.assign(seat, { epoch, position: 0 });
      if (told !== null) announce(told);
      catchUpAll();
    },
    finish(last) {
      for (const seat of seats) if (seat.live) takeOffTopic(seat);
      final = last;
      epoch = last.epoch;
      if (epoch === readEpoch && released >= standing()) {
        // The owner gave its end a number under which we have sent something else: only its word counts.
        readEpoch = '';
        for (const seat of [...seats]) beginAgain(seat, 'end_contradicts');
      }
      for (const seat of [...seats]) catchUp(seat);
    },
    join(viewer, position, facts, trusted) {
      const judged = trusted ? { recovery: 'exact' as const, after: position.after ?? 0 } : judge(position);
      if (position.after !== undefined) deps.onResume(judged.recovery);
      const seat: Seat = {
        viewer,
        epoch,
        position: judged.after,
        live: false,
        stuckSince: null,
        waiting: 0,
        gone: false,
      };
      seats.add(seat);
      const subscribed: OnSubscribedData = {
        ...facts,
        epoch,
        first_seq:
          nextFrame(epoch, judged.after)?.number ?? (standing() === 0 && !trusted ? 0 : judged.after + 1),
        last_seq: trusted ? judged.after : standing(),
        recovery: judged.recovery,
        trace_id: viewer.traceId,
      };
      if (send(seat, ownFrame({ event_type: 'on_subscribed', data: subscribed }))) catchUp(seat);
      return {
        drained() {
          if (!seat.gone && !seat.live) catchUp(seat);
        },
        leave: () => leave(seat),
      };
    },
    resetStrays(newest) {
      for (const seat of [...seats]) {
        if (seat.live || seat.position <= Math.max(released, newest)) continue;
        if (beginAgain(seat, 'position_unknown')) catchUp(seat);
      }
    },
    sweep(now) {
      for (const seat of [...seats]) {
        if (seat.stuckSince === null) continue;
        if (!overBudget(seat)) catchUp(seat);
        else if (now - seat.stuckSince > deps.stuckMs) slow(seat);
      }
    },
    closeAll(code, reason) {
      for (const seat of [...seats]) drop(seat, code, reason);
    },
    epoch: () => epoch,
    lastReleased: () => released,
    viewers: () => [...seats].map((seat) => seat.viewer),
    size: () => seats.size,
  };
}
