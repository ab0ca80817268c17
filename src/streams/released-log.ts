import type { NumberedFrame, ReplayWindow } from './replay-window.js';
import type { ViewerPosition } from './viewer.js';

/** The stored end of a thread, byte for byte the same on every replica: newest state?, error?, end. */
export interface LastFrames {
  epoch: string;
  frames: NumberedFrame[];
}

/** How a viewer's position is answered. */
export interface Judged {
  recovery: 'exact' | 'compacted' | 'reset';
  /** The viewer has everything up to here. */
  after: number;
}

/** What viewers of a thread can be given, whoever they are: the numbers of its epoch, and where their frames are. */
export interface ReleasedLog {
  /** The epoch that viewers are served; once finished, that of the last frames. */
  epoch(): string;
  /** The last number that went to viewers, the last frames not counted. */
  released(): number;
  /** The newest number that viewers of the present epoch can have. */
  standing(): number;
  final(): LastFrames | null;
  /** The frame of that epoch with the lowest number above `after` that is here. */
  next(of: string, after: number): NumberedFrame | null;
  /** The newest state update of the run above `after` that is here. */
  newestState(of: string, after: number): NumberedFrame | null;
  /** Frames above `after` up to this number were released and are not here any more; 0 where none is missing. */
  missingUpTo(of: string, after: number): number;
  /** `older` begins what is missing: frames that were read again, in order. */
  judge(position: ViewerPosition, older: readonly NumberedFrame[]): Judged;
  advance(number: number): void;
  /** Numbers that will never come. */
  skip(last: number): void;
  begin(epoch: string): void;
  /** Answers whether the end contradicts what was sent under its number: only its word counts then. */
  finish(last: LastFrames): boolean;
}

export function createReleasedLog(deps: {
  window: ReplayWindow;
  firstEpoch: string;
  epoch: string;
}): ReleasedLog {
  const { window } = deps;
  let epoch = deps.epoch;
  /** The epoch that the window holds. */
  let readEpoch = deps.epoch;
  let released = 0;
  /** The last number of the newest hole that will never be filled. */
  let holeEnd = 0;
  let final: LastFrames | null = null;

  const standing = (): number => (final === null ? released : (final.frames.at(-1)?.number ?? 0));

  function newestState(of: string, after: number): NumberedFrame | null {
    const state = of === readEpoch ? window.newestState() : null;
    return state !== null && state.number > after ? state : null;
  }

  function next(of: string, after: number): NumberedFrame | null {
    let best: NumberedFrame | null = null;
    if (of === readEpoch) {
      best = window.next(after);
      const state = newestState(of, after);
      if (state !== null && (best === null || state.number < best.number)) best = state;
    }
    if (final !== null && final.epoch === of) {
      const ending = final.frames.find((frame) => frame.number > after);
      if (ending !== undefined && (best === null || ending.number < best.number)) best = ending;
    }
    return best;
  }

  function missingUpTo(of: string, after: number): number {
    let missing = of === readEpoch ? window.lostUpTo() : 0;
    // Between what this replica read and the stored end there may be more, which others have read.
    if (final !== null && final.epoch === of && of.split('.')[1] !== 'closed') {
      const before = lastBefore(final);
      if (of !== readEpoch || released < before) missing = Math.max(missing, before);
    }
    return missing > after ? missing : 0;
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

  return {
    epoch: () => epoch,
    released: () => released,
    standing,
    final: () => final,
    next,
    newestState,
    missingUpTo,
    judge(position, older) {
      const { after = 0 } = position;
      const foreign = position.after !== undefined && (position.epoch ?? deps.firstEpoch) !== epoch;
      if (foreign || after > standing()) return { recovery: 'reset', after: 0 };
      const toldHole = epoch === readEpoch && after < holeEnd;
      const whole = isWhole(after) || (!toldHole && continues(older, after));
      return { recovery: whole ? 'exact' : 'compacted', after };
    },
    advance(number) {
      released = number;
    },
    skip(last) {
      holeEnd = last;
      released = last;
    },
    begin(next) {
      epoch = next;
      readEpoch = next;
      released = 0;
      holeEnd = 0;
      window.clear();
    },
    finish(last) {
      final = last;
      epoch = last.epoch;
      if (epoch !== readEpoch || released < standing()) return false;
      readEpoch = '';
      return true;
    },
  };
}

/** The highest number that the stored last frames do not bring themselves. */
function lastBefore({ frames }: LastFrames): number {
  const numbers = new Set(frames.map(({ number }) => number));
  let number = (frames.at(-1)?.number ?? 1) - 1;
  while (numbers.has(number)) number--;
  return number;
}

/** Whether the frames go on at `after` without a hole. */
function continues(frames: readonly NumberedFrame[], after: number): boolean {
  return frames.length > 0 && frames.every(({ number }, index) => number === after + 1 + index);
}
