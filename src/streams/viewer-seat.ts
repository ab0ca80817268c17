import { mergeTokens } from './merge-tokens.js';
import type { OlderFrames } from './older-frames.js';
import { ownFrame } from './own-frames.js';
import type { ReleasedLog } from './released-log.js';
import type { NumberedFrame } from './replay-window.js';
import type { Viewer } from './viewer.js';

/**
 * The ladder of a viewer that does not keep up. `full`: every frame, at its own pace. `merged`: tokens that wait are put
 * together. `states`: when it has room, the newest state alone, and the rest is left out on purpose.
 */
export type Step = 'full' | 'merged' | 'states';

/** One viewer of a thread. */
export interface Seat {
  readonly viewer: Viewer;
  /** What `position` counts in: another than the thread's while the end is in an epoch that it has not reached. */
  epoch: string;
  /** Last number that this viewer has or was told of; only kept true while it is not live. */
  position: number;
  /** Reads the topic. */
  live: boolean;
  /** Since when it has taken nothing although too much waits (monotonic ms); null while it takes. */
  stuckSince: number | null;
  /** Bytes that waited in its socket when it was looked at last. */
  waiting: number;
  gone: boolean;
  step: Step;
  /** When it left the topic, or came (monotonic ms); `NOT_BEHIND` while nothing waits for it. */
  behindSince: number;
  /** Numbers up to this one were released before that: sending them is no part of the lag. */
  cameAt: number;
  /** Of the bytes that were released altogether: those that it has of what came since, or need not have. */
  reached: number;
  /** Frames that were read again for it, and numbers that are nowhere to be had. */
  older: NumberedFrame[];
  goneUpTo: number;
  /** The read that is under way for it. */
  asking: symbol | null;
}

export interface SeatServiceDeps {
  log: ReleasedLog;
  older: OlderFrames | null;
  /** Bytes that may wait for one viewer. */
  budgetBytes: number;
  /** A viewer that takes nothing for this long is closed with 4408. */
  stuckMs: number;
  now: () => number;
  /** Bytes that were released so far. */
  releasedBytes: () => number;
  /** The seat stands at the end of what was released, and has room: from now on it reads the topic. */
  goLive: (seat: Seat) => void;
  /** Takes the seat away; its socket is closed by whoever calls. */
  leave: (seat: Seat) => void;
  onStep: (step: Step | 'closed') => void;
  /** Frames that were put into others, or left out. */
  onMerged: (frames: number) => void;
  onLeftOut: (frames: number) => void;
}

/** Serves the viewers that do not read the topic: those that come, come back or lag. */
export interface SeatService {
  /** Sends what the viewer lacks as fast as it takes it; at the end of what there is it goes on the topic. */
  serve(seat: Seat): void;
  /** Sends one message; false where the viewer was closed for having no room. */
  send(seat: Seat, message: Buffer | string): boolean;
  /** What the viewer has means nothing: everything from 1, in the epoch of now. */
  beginAgain(seat: Seat, reason: string): boolean;
  /** Closes a viewer that has taken nothing for too long; serves one whose drain was not heard. */
  sweep(seat: Seat, now: number): void;
  drop(seat: Seat, code: number, reason: string): void;
}

/** A lag is one when it has lasted: a burst with a large state is not. Milliseconds. */
const MERGE_AFTER_MS = 100;
const STATES_AFTER_MS = 1_000;
/** It has everything: its lag begins with what comes next, however long that takes. */
const NOT_BEHIND = Number.POSITIVE_INFINITY;
/** On the lowest step for so many times `stuckMs` without draining: it takes a little, and never enough. */
const PATIENCE = 6;

/** Above this many waiting bytes a viewer leaves the topic, and what waits for it is merged. */
export function lagBytesOf(budgetBytes: number): number {
  return budgetBytes / 4;
}

export function createSeat(
  viewer: Viewer,
  at: { epoch: string; position: number; now: number; released: number; releasedBytes: number },
): Seat {
  return {
    viewer,
    epoch: at.epoch,
    position: at.position,
    live: false,
    stuckSince: null,
    waiting: 0,
    gone: false,
    step: 'full',
    behindSince: at.now,
    cameAt: at.released,
    reached: at.releasedBytes,
    older: [],
    goneUpTo: 0,
    asking: null,
  };
}

export function createSeatService(deps: SeatServiceDeps): SeatService {
  const { log, budgetBytes } = deps;
  const lagBytes = lagBytesOf(budgetBytes);
  /** A viewer has drained when no more than this waits in its socket. */
  const drainedBytes = lagBytes / 4;

  function drop(seat: Seat, code: number, reason: string): void {
    deps.leave(seat);
    seat.viewer.close(code, reason);
  }

  function slow(seat: Seat): void {
    deps.onStep('closed');
    drop(seat, 4408, JSON.stringify({ epoch: seat.epoch, seq: seat.position }));
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

  /** Something waits, and too much of it; a viewer that takes any of it is not stuck. */
  function isFull(seat: Seat): boolean {
    const waiting = seat.viewer.bufferedBytes();
    if (waiting <= (seat.step === 'states' ? drainedBytes : budgetBytes)) {
      seat.stuckSince = null;
      return false;
    }
    if (seat.stuckSince === null || waiting < seat.waiting) seat.stuckSince = deps.now();
    seat.waiting = waiting;
    return true;
  }

  /**
   * Down the ladder by what waits beside the socket and for how long; up again only by catching up. What is in the
   * socket does not count: one large state is no lag.
   */
  function stepOf(seat: Seat): Step {
    const lag = deps.releasedBytes() - seat.reached;
    const behindMs = deps.now() - seat.behindSince;
    if (seat.step === 'states' || (lag > budgetBytes && behindMs >= STATES_AFTER_MS)) return 'states';
    if (seat.step === 'merged' || (lag > lagBytes && behindMs >= MERGE_AFTER_MS)) return 'merged';
    return 'full';
  }

  function takeStep(seat: Seat): void {
    // It waits for our reading, not the other way.
    if (seat.asking !== null) return;
    if (seat.behindSince === NOT_BEHIND) seat.behindSince = deps.now();
    const step = stepOf(seat);
    if (step === seat.step) return;
    seat.step = step;
    deps.onStep(step);
  }

  function serve(seat: Seat): void {
    seat.viewer.cork(() => {
      while (!seat.gone && !seat.live) {
        takeStep(seat);
        if (isFull(seat)) return;
        if (!(seat.step === 'states' ? leaveOut(seat) : bringNext(seat))) return;
      }
    });
  }

  /** One frame, or the step after the last; false where there is nothing to do for now. */
  function bringNext(seat: Seat): boolean {
    const { epoch, position } = seat;
    const kept = log.next(epoch, position);
    while ((seat.older[0]?.number ?? position + 1) <= position) seat.older.shift();
    const read = seat.older[0];
    const frame = read !== undefined && (kept === null || read.number <= kept.number) ? read : kept;
    if (read === undefined && frame?.number !== position + 1 && askForOlder(seat)) return false;
    if (frame === null) return goOn(seat);
    if (!tellSkipped(seat, frame.number - 1)) return false;
    const merged =
      seat.step === 'merged' && frame === kept ? mergeTokens(frame, (at) => log.next(epoch, at)) : null;
    if (merged !== null) deps.onMerged(merged.count);
    const { number, bytes } = merged ?? frame;
    if (!send(seat, bytes)) return false;
    if (number > seat.cameAt) seat.reached += merged?.from ?? bytes.length;
    else seat.behindSince = deps.now();
    seat.position = number;
    return true;
  }

  /** Nothing is left of the seat's epoch: the next epoch, the end, or the topic. */
  function goOn(seat: Seat): boolean {
    // The run was ended by us, in an epoch of its own.
    if (seat.epoch !== log.epoch()) return beginAgain(seat, 'run_closed');
    if (log.final() !== null) {
      if (seat.position > log.standing()) return beginAgain(seat, 'position_unknown');
      drop(seat, 1000, 'done');
      return false;
    }
    if (seat.position < log.released()) return tellSkipped(seat, log.released());
    seat.reached = deps.releasedBytes();
    seat.behindSince = NOT_BEHIND;
    // Ahead of everything that was released here it waits.
    if (seat.position > log.released()) return false;
    if (seat.viewer.bufferedBytes() > lagBytes) return false;
    if (seat.step !== 'full') deps.onStep('full');
    deps.goLive(seat);
    return false;
  }

  /** The newest state, and nothing of what lies around it; then as `bringNext`. */
  function leaveOut(seat: Seat): boolean {
    const { epoch } = seat;
    const before = seat.position;
    const final = log.final();
    if (final !== null && final.epoch === epoch) {
      const ending = final.frames.find(({ number }) => number > before);
      if (ending === undefined) return goOn(seat);
      if (!tellSkipped(seat, ending.number - 1) || !send(seat, ending.bytes)) return false;
      deps.onLeftOut(ending.number - 1 - before);
      seat.position = ending.number;
      return true;
    }
    const state = log.newestState(epoch, before);
    if (state !== null) {
      if (!tellSkipped(seat, state.number - 1) || !send(seat, state.bytes)) return false;
      seat.position = state.number;
    }
    if (!tellSkipped(seat, log.released())) return false;
    deps.onLeftOut(Math.max(0, seat.position - before - (state === null ? 0 : 1)));
    seat.reached = deps.releasedBytes();
    seat.older = [];
    return goOn(seat);
  }

  /** Whether frames that are not here any more are being read for the seat. */
  function askForOlder(seat: Seat): boolean {
    const { older } = deps;
    if (older === null) return false;
    if (seat.asking !== null) return true;
    const { epoch, position } = seat;
    const upTo = log.missingUpTo(epoch, position);
    if (upTo <= seat.goneUpTo) return false;
    const asking = Symbol();
    seat.asking = asking;
    void older.read(epoch, position, upTo).then((frames) => {
      // It has begun again since, or reads the topic.
      if (seat.gone || seat.asking !== asking) return;
      seat.asking = null;
      seat.behindSince = deps.now();
      takeOlder(seat, frames, upTo);
      serve(seat);
    });
    return true;
  }

  function beginAgain(seat: Seat, reason: string): boolean {
    const epoch = log.epoch();
    Object.assign(seat, { epoch, position: 0, older: [], goneUpTo: 0, asking: null });
    return send(seat, ownFrame({ event_type: 'on_reset', data: { epoch, reason } }));
  }

  return {
    serve,
    send,
    beginAgain,
    drop,
    sweep(seat, now) {
      if (seat.live) return;
      if (seat.stuckSince !== null && now - seat.stuckSince > deps.stuckMs && isFull(seat)) return slow(seat);
      if (seat.step === 'states' && now - seat.behindSince > PATIENCE * deps.stuckMs) return slow(seat);
      serve(seat);
    },
  };
}

/** Frames that were read again for a seat; what lies before and between them is nowhere to be had. */
export function takeOlder(seat: Seat, frames: readonly NumberedFrame[], upTo: number): void {
  seat.older = [...frames];
  seat.goneUpTo = frames.length === 0 ? upTo : (frames[0]?.number ?? 1) - 1;
}
