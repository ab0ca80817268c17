import type { OnSubscribedData } from '@ide-orchestrator/protocol';
import type { FrameBatch } from './frame-batch.js';
import type { OlderFrames } from './older-frames.js';
import { ownFrame } from './own-frames.js';
import { createReleasedLog, type Judged, type LastFrames } from './released-log.js';
import type { NumberedFrame, ReplayWindow } from './replay-window.js';
import type { Publish, Viewer, ViewerPosition } from './viewer.js';
import { createSeat, createSeatService, lagBytesOf, type Seat, type Step, takeOlder } from './viewer-seat.js';

/** What `on_subscribed` says beside the position. */
export type SubscribedFacts = Pick<OnSubscribedData, 'thread_id' | 'proposal_id' | 'status' | 'phase'>;

export interface Member {
  /** Call when the viewer's socket has room again. */
  drained(): void;
  leave(): void;
}

/** Frames that a viewer lacks and that are not here any more. */
interface MissingFrames {
  epoch: string;
  after: number;
  upTo: number;
}

/** What of them could be read again: none, or in order as far as it was read. */
export interface ReadAgain extends MissingFrames {
  frames: readonly NumberedFrame[];
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
  /** What is to be read again before a viewer with this position can be answered exactly; null where all is here. */
  missing(position: ViewerPosition): MissingFrames | null;
  /**
   * `on_subscribed`, what the viewer missed, then the run. `trusted`: the position is believed until the runtime's log
   * says otherwise. `again`: what came of reading what was missing.
   */
  join(
    viewer: Viewer,
    position: ViewerPosition,
    facts: SubscribedFacts,
    trusted: boolean,
    again?: ReadAgain | null,
  ): Member;
  /** Tells viewers that stand beyond `newest`, the runtime's word on its log, that their position means nothing. */
  resetStrays(newest: number): void;
  /** Serves viewers whose drain was not heard, and closes those that have taken nothing for too long. */
  sweep(now: number): void;
  closeAll(code: number, reason: string): void;
  /** The epoch that viewers are served; once finished, that of the last frames. */
  epoch(): string;
  lastReleased(): number;
  viewers(): Iterable<Viewer>;
  size(): number;
}

export interface FanOutDeps {
  topic: string;
  firstEpoch: string;
  epoch: string;
  window: ReplayWindow;
  /** Where frames are that have left the window. */
  older: OlderFrames | null;
  publish: Publish;
  /** Bytes that may wait for a viewer. */
  budgetBytes: number;
  /** A viewer that takes nothing for this long is closed with 4408. */
  stuckMs: number;
  now: () => number;
  onResume: (recovery: Judged['recovery']) => void;
  /** A viewer went up or down the ladder, or was closed with 4408. */
  onStep: (step: Step | 'closed') => void;
  onMerged: (frames: number) => void;
  onLeftOut: (frames: number) => void;
}

/** The largest head of a WebSocket frame from a server. */
const FRAME_HEADER = 10;

export function createFanOut(deps: FanOutDeps): FanOut {
  const { topic } = deps;
  const log = createReleasedLog(deps);
  const lagBytes = lagBytesOf(deps.budgetBytes);
  const seats = new Set<Seat>();
  let live = 0;
  /** Bytes put on the topic since the viewers were looked at, and the most that waited for one of them then. */
  let published = 0;
  let fullest = 0;
  /** Bytes released while somebody was there: only differences count. */
  let releasedBytes = 0;

  const service = createSeatService({
    ...deps,
    log,
    releasedBytes: () => releasedBytes,
    leave,
    goLive(seat) {
      seat.live = true;
      seat.step = 'full';
      seat.older = [];
      live++;
      fullest = Math.max(fullest, seat.viewer.bufferedBytes());
      seat.viewer.subscribe(topic);
    },
  });

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

  function takeOffTopic(seat: Seat): void {
    live--;
    seat.viewer.unsubscribe(topic);
    const position = log.released();
    Object.assign(seat, {
      live: false,
      position,
      cameAt: position,
      reached: releasedBytes,
      behindSince: deps.now(),
    });
  }

  /** The topic drops without a word what has no room: who has too much waiting leaves it first. */
  function keepThoseWithRoom(): void {
    // What waits cannot have grown by more than what was published, so most frames need not ask for it.
    if (live === 0 || fullest + published <= lagBytes) return;
    fullest = 0;
    published = 0;
    for (const seat of seats) {
      if (!seat.live) continue;
      const waiting = seat.viewer.bufferedBytes();
      if (waiting > lagBytes) takeOffTopic(seat);
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
      const before = published;
      for (let index = from; index < to; index++) toTopic(batch.frames[index] as Buffer);
      releasedBytes += published - before;
    } else if (seats.size > 0) {
      for (let index = from; index < to; index++) releasedBytes += (batch.frames[index] as Buffer).length;
    }
    for (let index = to - 1; index >= from; index--) {
      const number = batch.numbers[index] ?? 0;
      if (number === 0) continue;
      log.advance(number);
      break;
    }
    serveAll();
  }

  function serveAll(): void {
    if (live < seats.size) for (const seat of [...seats]) if (!seat.live) service.serve(seat);
  }

  function announce(frame: Parameters<typeof ownFrame>[0]): void {
    keepThoseWithRoom();
    const text = ownFrame(frame);
    if (live > 0) toTopic(text);
    for (const seat of [...seats]) if (!seat.live) service.send(seat, text);
  }

  return {
    publish,
    announce,
    skip(first, last) {
      keepThoseWithRoom();
      if (live > 0) {
        toTopic(ownFrame({ event_type: 'on_skipped', data: { first_seq: first, last_seq: last } }));
      }
      log.skip(last);
      serveAll();
    },
    beginEpoch(next, told) {
      log.begin(next);
      const begun = {
        epoch: next,
        position: 0,
        cameAt: 0,
        reached: releasedBytes,
        older: [],
        goneUpTo: 0,
        asking: null,
      };
      // Before it is told: a viewer that drops the telling comes back for all of the new epoch.
      for (const seat of seats) Object.assign(seat, begun);
      if (told !== null) announce(told);
      serveAll();
    },
    finish(last) {
      for (const seat of seats) if (seat.live) takeOffTopic(seat);
      // The owner gave its end a number under which we have sent something else: only its word counts.
      if (log.finish(last)) for (const seat of [...seats]) service.beginAgain(seat, 'end_contradicts');
      serveAll();
    },
    missing(position) {
      const { recovery, after } = log.judge(position, []);
      const epoch = log.epoch();
      const upTo = recovery === 'exact' ? 0 : log.missingUpTo(epoch, after);
      return upTo === 0 ? null : { epoch, after, upTo };
    },
    join(viewer, position, facts, trusted, again = null) {
      const epoch = log.epoch();
      // The thread may have gone on meanwhile.
      const older = again?.epoch === epoch ? again.frames : [];
      const judged: Judged = trusted
        ? { recovery: 'exact', after: position.after ?? 0 }
        : log.judge(position, older);
      const { recovery, after } = judged;
      if (position.after !== undefined) deps.onResume(recovery);
      const at = { epoch, position: after, now: deps.now(), released: log.released(), releasedBytes };
      const seat = createSeat(viewer, at);
      if (again?.epoch === epoch && again.after === after) takeOlder(seat, again.frames, again.upTo);
      seats.add(seat);
      const first = Math.min(
        older[0]?.number ?? Number.POSITIVE_INFINITY,
        log.next(epoch, after)?.number ?? Number.POSITIVE_INFINITY,
      );
      const subscribed: OnSubscribedData = {
        ...facts,
        epoch,
        first_seq: Number.isFinite(first) ? first : log.standing() === 0 && !trusted ? 0 : after + 1,
        last_seq: trusted ? after : log.standing(),
        recovery,
        trace_id: viewer.traceId,
      };
      if (service.send(seat, ownFrame({ event_type: 'on_subscribed', data: subscribed })))
        service.serve(seat);
      return {
        drained() {
          if (!seat.gone && !seat.live) service.serve(seat);
        },
        leave: () => leave(seat),
      };
    },
    resetStrays(newest) {
      for (const seat of [...seats]) {
        if (seat.live || seat.position <= Math.max(log.released(), newest)) continue;
        if (service.beginAgain(seat, 'position_unknown')) service.serve(seat);
      }
    },
    sweep(now) {
      for (const seat of [...seats]) service.sweep(seat, now);
    },
    closeAll(code, reason) {
      for (const seat of [...seats]) service.drop(seat, code, reason);
    },
    epoch: log.epoch,
    lastReleased: log.released,
    viewers: () => [...seats].map((seat) => seat.viewer),
    size: () => seats.size,
  };
}
