import { runtimeOpening } from '@ide-orchestrator/protocol';
import { Observable, type Subscriber } from 'rxjs';
import { createFrameDecoder, parseFrame, renumberFrame } from './decode-frame.js';
import { createFrameBatch, type FrameBatch, FrameKind, pushFrame, sameSlots } from './frame-batch.js';
import type { StreamPosition } from './stream-position.js';
import type { NumberedSignal, SocketSignal } from './stream-signals.js';

/** The numbers of one attempt, over all connections that read it. */
export interface Numbering {
  /** A connection begins: what it says first decides whether the numbers go on. */
  connect(): void;
  /** Where the next connection goes on; null = from the start, since this runtime cannot resume. */
  position(): StreamPosition | null;
  /** One operator for each connection: `(socket$) => numbered$`. */
  number(source: Observable<SocketSignal>): Observable<NumberedSignal>;
  /** What came after this number was not used: the next connection is to bring it again. */
  rewind(after: number): void;
  last(): number;
  epoch(): string;
  /** A hole was left, or a frame could not be read: the files at the end come from the runtime's state. */
  damaged(): boolean;
}

export interface NumberingDeps {
  attempt: number;
  /** No connection before ours can have read this attempt: without `on_open` only such a one counts as `<attempt>.1`. */
  first: boolean;
  /** Part of the epoch of a connection whose numbers mean nothing to any other. */
  randomEpoch: () => string;
  /** The newest state update of the thread, which such an epoch begins with. */
  newestState: () => Buffer | null;
}

type Mode = 'undecided' | 'numbered' | 'counted';

export function createNumbering(deps: NumberingDeps): Numbering {
  const decoder = createFrameDecoder();
  const epochOf = (part: number | string) => `${deps.attempt}.${part}`;
  let epoch = epochOf(1);
  let mode: Mode = 'undecided';
  let last = 0;
  let runtimeEpoch: number | null = null;
  /** A connection of this attempt has begun a log already. */
  let known = false;
  let hurt = false;
  // Of the present connection:
  let opened = false;
  let begun = false;
  /** Numbers up to this one are known to be gone: the runtime said so, or the same hole came twice. */
  let given = 0;
  /** The newest hole that a connection was closed for: the number that came, and the last one before it. */
  let holeBefore = 0;
  let holeAfter = -1;
  let unreadable = 0;
  let closing = false;

  function connect(): void {
    opened = false;
    begun = false;
    closing = false;
    unreadable = 0;
  }

  function number(source: Observable<SocketSignal>): Observable<NumberedSignal> {
    return new Observable<NumberedSignal>((subscriber) => {
      return source.subscribe({
        next: (signal) => {
          if (signal.type !== 'frames') return subscriber.next(signal);
          numberBatch(signal.batch, subscriber);
          // The hole was told: the next connection fills it.
          if (closing) subscriber.complete();
        },
        error: (error) => subscriber.error(error),
        complete: () => subscriber.complete(),
      });
    });
  }

  function numberBatch(batch: FrameBatch, subscriber: Subscriber<NumberedSignal>): void {
    const out = sameSlots(batch);
    for (let index = 0; index < batch.length; index++) {
      const bytes = batch.frames[index] as Buffer;
      const kind = batch.kinds[index] === FrameKind.unreadable ? FrameKind.unreadable : decoder.decode(bytes);
      const wire = decoder.number;
      if (mode === 'numbered' && begun && wire === last + 1 && kind < FrameKind.opening && unreadable === 0) {
        last = wire;
        pushFrame(out, bytes, kind, wire);
        continue;
      }
      takeUnusual(bytes, kind, wire, out, subscriber);
      if (closing || subscriber.closed) break;
    }
    flush(out, subscriber);
  }

  function flush(out: FrameBatch, subscriber: Subscriber<NumberedSignal>): void {
    if (out.length > 0) subscriber.next({ type: 'frames', batch: out });
    out.length = 0;
  }

  function takeUnusual(
    bytes: Buffer,
    kind: FrameKind,
    wire: number,
    out: FrameBatch,
    subscriber: Subscriber<NumberedSignal>,
  ): void {
    if (kind === FrameKind.opening) {
      flush(out, subscriber);
      open(subscriber);
      return;
    }
    if (kind === FrameKind.rejected) return;
    if (kind === FrameKind.unreadable) return drop(out, subscriber);
    if (!begun) {
      flush(out, subscriber);
      begin(wire, subscriber);
    }
    if (mode === 'counted') {
      const value = decoder.value ?? parseFrame(bytes);
      if (value === null) return drop(out, subscriber);
      last++;
      pushFrame(out, renumberFrame(bytes, value, last), kind, last);
    } else if (wire === 0) pushFrame(out, bytes, kind, 0);
    else takeNumbered(bytes, kind, wire, out, subscriber);
  }

  function drop(out: FrameBatch, subscriber: Subscriber<NumberedSignal>): void {
    hurt = true;
    unreadable++;
    flush(out, subscriber);
    subscriber.next({ type: 'unreadable' });
  }

  /**
   * Whether another connection would bring no more: a connection was closed already for the numbers before
   * `wire`, or frames that could not be read are as many, and would come again.
   */
  function isExplained(wire: number): boolean {
    return wire <= holeBefore || last === holeAfter || wire - 1 - last <= unreadable;
  }

  function takeNumbered(
    bytes: Buffer,
    kind: FrameKind,
    wire: number,
    out: FrameBatch,
    subscriber: Subscriber<NumberedSignal>,
  ): void {
    if (wire <= last) return; // seen already in this epoch
    if (wire > last + 1) {
      if (wire - 1 > given && !isExplained(wire)) {
        holeBefore = wire;
        holeAfter = last;
        closing = true;
        flush(out, subscriber);
        subscriber.next({ type: 'hole' });
        return;
      }
      hurt = true;
      flush(out, subscriber);
      subscriber.next({ type: 'skipped', first: last + 1, last: wire - 1 });
    }
    unreadable = 0;
    last = wire;
    pushFrame(out, bytes, kind, wire);
  }

  function restart(
    next: string,
    subscriber: Subscriber<NumberedSignal>,
    reason: string,
    lastSeq: number,
  ): void {
    const reset = known;
    known = true;
    epoch = next;
    last = 0;
    given = 0;
    holeBefore = 0;
    holeAfter = -1;
    mode = 'undecided';
    if (reset) hurt = false;
    subscriber.next({ type: 'epoch', epoch, runtimeEpoch, reset, reason, lastSeq });
  }

  /** `on_open`: the runtime says which log this is. */
  function open(subscriber: Subscriber<NumberedSignal>): void {
    const opening = runtimeOpening.safeParse(decoder.value?.data);
    // A runtime that opens but does not number cannot go on: its frames begin an epoch of their own.
    // One that comes after frames says nothing of them.
    if (!opening.success || opened || begun || (known && mode === 'counted')) return;
    opened = true;
    const { epoch: told, first_seq: first, last_seq: newest } = opening.data;
    // A log that was read without an opening so far, and has the number that we gave it, goes on.
    if (runtimeEpoch === null && known && epochOf(told) === epoch) runtimeEpoch = told;
    if (told !== runtimeEpoch) {
      runtimeEpoch = told;
      restart(epochOf(told), subscriber, 'log_begun_anew', newest);
    } else {
      subscriber.next({
        type: 'epoch',
        epoch,
        runtimeEpoch,
        reset: false,
        reason: 'resumed',
        lastSeq: newest,
      });
    }
    given = first - 1;
  }

  /** The first frame that counts decides whether this runtime numbers, and whether its numbers go on. */
  function begin(wire: number, subscriber: Subscriber<NumberedSignal>): void {
    begun = true;
    if (opened) {
      if (mode === 'undecided') mode = wire > 0 ? 'numbered' : 'counted';
      return;
    }
    if (!known && deps.first) {
      known = true;
      mode = wire > 0 ? 'numbered' : 'counted';
      subscriber.next({
        type: 'epoch',
        epoch,
        runtimeEpoch: null,
        reset: false,
        reason: 'opened',
        lastSeq: 0,
      });
      return;
    }
    const goesOn = mode === 'numbered' && wire > last && (wire === last + 1 || isExplained(wire));
    if (goesOn) {
      subscriber.next({ type: 'epoch', epoch, runtimeEpoch, reset: false, reason: 'resumed', lastSeq: last });
      return;
    }
    const state = deps.newestState();
    const value = state === null ? null : parseFrame(state);
    // What was sent between two connections is known to no one; a first one reads from the start.
    const gap = known;
    restart(epochOf(deps.randomEpoch()), subscriber, 'numbers_lost', 0);
    mode = 'counted';
    if (gap) hurt = true;
    if (state === null || value === null) return;
    last = 1;
    const injected = createFrameBatch();
    pushFrame(injected, renumberFrame(state, value, 1), FrameKind.state, 1);
    subscriber.next({ type: 'frames', batch: injected });
  }

  return {
    connect,
    number,
    rewind(after) {
      if (mode === 'numbered') last = Math.min(last, after);
    },
    position: () => {
      if (mode === 'counted') return null;
      return last === 0 && runtimeEpoch === null ? null : { after: last, epoch: runtimeEpoch };
    },
    last: () => last,
    epoch: () => epoch,
    damaged: () => hurt,
  };
}
