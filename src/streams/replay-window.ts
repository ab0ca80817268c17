import type { FrameBatch } from './frame-batch.js';
import { FrameKind } from './frame-batch.js';

/** Shared by all windows of the process, so that together they stay within one budget. */
export interface WindowBudget {
  readonly processBytes: number;
  readonly threadBytes: number;
  usedBytes: number;
  windows: number;
  /** Segments that were given back, by their size: memory that comes and goes makes the garbage collector run. */
  readonly spare: Map<number, Buffer[]>;
  spareBytes: number;
}

export interface NumberedFrame {
  number: number;
  bytes: Buffer;
}

/** The newest frames of one epoch of a thread, for viewers that come late, come back or lag. */
export interface ReplayWindow {
  /** Keeps the numbered frames `from` up to `to` of a batch: one copy for each read, not for each frame. */
  append(batch: FrameBatch, from: number, to: number): void;
  /** The frame with the lowest number above `after` that is still here. Its bytes are good until the next append. */
  next(after: number): NumberedFrame | null;
  /** The newest state update, kept when its frame has gone from the window. */
  newestState(): NumberedFrame | null;
  /** The highest number that was here and has gone for lack of room; 0 where none has. */
  lostUpTo(): number;
  /** Forgets everything: another epoch begins. */
  clear(): void;
  /** As clear, and the window takes no part in the budget any more. */
  close(): void;
  /** Bytes held, for tests and metrics. */
  bytes(): number;
}

interface Segment {
  bytes: Buffer;
  used: number;
}

const FIRST_SEGMENT = 4 * 1024;
const SEGMENT = 64 * 1024;
/** Bytes of segments that wait to be used again, for the whole process. */
const SPARE_BYTES = 16 * 1024 * 1024;
/** A thread always may keep this much, however many threads there are. */
const LEAST_SHARE = 64 * 1024;
/** Frames of one read lie a frame header apart; more than this between them and they are copied apart. */
const LARGEST_GAP = 16;

const powerOfTwoUpTo = (size: number): number => 2 ** (31 - Math.clz32(size));

export function createWindowBudget(options: { processBytes: number; threadBytes: number }): WindowBudget {
  return { ...options, usedBytes: 0, windows: 0, spare: new Map(), spareBytes: 0 };
}

export function createReplayWindow(budget: WindowBudget): ReplayWindow {
  let segments: Segment[] = [];
  /** Serial number of `segments[0]`; entries name segments by serial number. */
  let firstSegment = 0;
  let held = 0;
  let numbers = new Float64Array(32);
  let places = new Uint32Array(32 * 3);
  let head = 0;
  let count = 0;
  let lost = 0;
  let state: NumberedFrame | null = null;
  let closed = false;
  budget.windows++;

  function share(): number {
    return Math.min(budget.threadBytes, Math.max(LEAST_SHARE, budget.processBytes / budget.windows));
  }

  function room(length: number): Segment {
    const last = segments[segments.length - 1];
    if (last !== undefined && last.bytes.length - last.used >= length) return last;
    const size = Math.max(length, held === 0 ? FIRST_SEGMENT : Math.min(SEGMENT, powerOfTwoUpTo(held)));
    // First, so that what is dropped is what is used again.
    while (segments.length > 0 && held + size > share()) dropOldestSegment();
    const segment = { bytes: takeSpare(size) ?? Buffer.allocUnsafeSlow(size), used: 0 };
    segments.push(segment);
    held += size;
    budget.usedBytes += size;
    return segment;
  }

  function dropOldestSegment(): void {
    const dropped = segments.shift();
    if (dropped === undefined) return;
    held -= dropped.bytes.length;
    budget.usedBytes -= dropped.bytes.length;
    while (count > 0 && places[head * 3] === firstSegment) {
      lost = numbers[head] ?? lost;
      head = (head + 1) % numbers.length;
      count--;
    }
    firstSegment++;
    giveBack(dropped.bytes);
  }

  function takeSpare(size: number): Buffer | undefined {
    const spare = budget.spare.get(size)?.pop();
    if (spare !== undefined) budget.spareBytes -= size;
    return spare;
  }

  function giveBack(bytes: Buffer): void {
    // The newest state update is still needed when its frame has gone.
    if (state !== null && state.bytes.buffer === bytes.buffer) state.bytes = Buffer.from(state.bytes);
    const size = bytes.length;
    // Others were made for one large frame.
    if (size > SEGMENT || powerOfTwoUpTo(size) !== size || budget.spareBytes + size > SPARE_BYTES) return;
    budget.spareBytes += size;
    const alike = budget.spare.get(size);
    if (alike === undefined) budget.spare.set(size, [bytes]);
    else alike.push(bytes);
  }

  function grow(): void {
    const size = numbers.length;
    const biggerNumbers = new Float64Array(size * 2);
    const biggerPlaces = new Uint32Array(size * 6);
    for (let index = 0; index < count; index++) {
      const from = (head + index) % size;
      biggerNumbers[index] = numbers[from] ?? 0;
      biggerPlaces.set(places.subarray(from * 3, from * 3 + 3), index * 3);
    }
    numbers = biggerNumbers;
    places = biggerPlaces;
    head = 0;
  }

  function note(number: number, segment: number, offset: number, length: number): void {
    if (count === numbers.length) grow();
    const at = (head + count) % numbers.length;
    numbers[at] = number;
    places[at * 3] = segment;
    places[at * 3 + 1] = offset;
    places[at * 3 + 2] = length;
    count++;
  }

  function frameAt(index: number): NumberedFrame {
    const at = (head + index) % numbers.length;
    const segment = segments[(places[at * 3] ?? 0) - firstSegment];
    const offset = places[at * 3 + 1] ?? 0;
    const length = places[at * 3 + 2] ?? 0;
    if (segment === undefined) throw new Error('the replay window lost a segment');
    return { number: numbers[at] ?? 0, bytes: segment.bytes.subarray(offset, offset + length) };
  }

  /** Where the group of frames that begins at `from` and lies in one piece of memory ends. */
  function groupEnd(batch: FrameBatch, from: number, to: number): number {
    let previous = batch.frames[from] as Buffer;
    let end = from + 1;
    for (; end < to; end++) {
      const frame = batch.frames[end] as Buffer;
      const gap = frame.byteOffset - previous.byteOffset - previous.length;
      if (frame.buffer !== previous.buffer || gap < 0 || gap > LARGEST_GAP) break;
      previous = frame;
    }
    return end;
  }

  function append(batch: FrameBatch, from: number, to: number): void {
    if (closed) return;
    while (from < to) {
      const end = groupEnd(batch, from, to);
      const first = batch.frames[from] as Buffer;
      const last = batch.frames[end - 1] as Buffer;
      const start = first.byteOffset;
      const length = last.byteOffset + last.length - start;
      const segment = room(length);
      const at = segment.used;
      if (end - from === 1) first.copy(segment.bytes, at);
      else segment.bytes.set(new Uint8Array(first.buffer, start, length), at);
      segment.used += length;
      const serial = firstSegment + segments.length - 1;
      for (let index = from; index < end; index++) {
        const number = batch.numbers[index] ?? 0;
        if (number === 0) continue;
        const frame = batch.frames[index] as Buffer;
        note(number, serial, at + frame.byteOffset - start, frame.length);
        if (batch.kinds[index] === FrameKind.state) state = frameAt(count - 1);
      }
      from = end;
    }
  }

  function next(after: number): NumberedFrame | null {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((numbers[(head + middle) % numbers.length] ?? 0) > after) high = middle;
      else low = middle + 1;
    }
    return low < count ? frameAt(low) : null;
  }

  function clear(): void {
    budget.usedBytes -= held;
    firstSegment += segments.length;
    state = null;
    for (const segment of segments) giveBack(segment.bytes);
    segments = [];
    held = 0;
    head = 0;
    count = 0;
    lost = 0;
  }

  return {
    append,
    next,
    newestState: () => state,
    lostUpTo: () => lost,
    clear,
    close() {
      if (closed) return;
      closed = true;
      clear();
      budget.windows--;
    },
    bytes: () => held,
  };
}
