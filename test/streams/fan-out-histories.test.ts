import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { test } from 'tap';
import type { Member } from '../../src/streams/fan-out.js';
import type { OlderFrames } from '../../src/streams/older-frames.js';
import type { FakeViewer } from '../support/fake-viewer.js';
import { createFanOutFixture, lastFramesOf, subscribedFacts } from '../support/fan-out-fixture.js';
import { frameText } from '../support/frames.js';
import { accountOf, type Released } from '../support/viewer-oracle.js';

interface Socket {
  viewer: FakeViewer;
  member: Member;
  after: number;
  left: boolean;
  /** It always had room, and its whole answer was in the window. */
  lossless: boolean;
}

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('frames' as const),
      count: fc.integer({ min: 1, max: 6 }),
      size: fc.oneof(fc.nat(200), fc.integer({ min: 5_000, max: 30_000 })),
      state: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('join' as const),
      open: fc.boolean(),
      from: fc.constantFrom('start', 'within', 'end', 'beyond', 'trusted', 'foreign', 'back'),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), which: fc.nat(20) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('take' as const),
      which: fc.nat(20),
      bytes: fc.integer({ min: 100, max: 60_000 }),
      drain: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('valve' as const), which: fc.nat(20), open: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('skip' as const), count: fc.integer({ min: 1, max: 4 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('epoch' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('announce' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('sweep' as const), ms: fc.integer({ min: 0, max: 700 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('strays' as const) }) },
);
const ending = fc.record({ closed: fc.boolean(), gap: fc.nat(2), error: fc.boolean(), before: fc.nat(40) });

/** What the histories came to, all together. */
interface Seen {
  merged: number;
  leftOut: number;
  reads: number;
  recoveries: Set<string>;
}

/** Runs one history and returns what is wrong with it, or null. */
async function faultOf(
  steps: readonly (typeof step extends fc.Arbitrary<infer S> ? S : never)[],
  end: { closed: boolean; gap: number; error: boolean },
  kept: 'all' | 'some' | 'none',
  seen: Seen,
): Promise<string | null> {
  const released = new Map<string, Released>();
  /** The runtime's log, a few frames at a time; where it is gone, nothing. */
  let reads = 0;
  const older: OlderFrames = {
    async read(epoch, after, upTo) {
      seen.reads++;
      const gone = kept === 'none' || (kept === 'some' && reads++ % 3 === 2);
      const frames = gone ? [] : [...(released.get(epoch)?.frames ?? [])];
      const wanted = frames.filter(([number]) => number > after && number <= upTo).slice(0, 7);
      return wanted.map(([number, text]) => ({ number, bytes: Buffer.from(text) }));
    },
  };
  const { fanOut, topics, clock, counts, release } = createFanOutFixture({
    budgetBytes: 20_000,
    threadBytes: 64 * 1024,
    stuckMs: 4_000,
    older,
  });
  const sockets: Socket[] = [];
  let epochs = 1;
  let last = 0;
  const begin = (epoch: string) => {
    const made: Released = { epoch, frames: new Map(), missing: new Set() };
    released.set(epoch, made);
    last = 0;
    return made;
  };
  let now = begin('1.1');
  const pick = (which: number) => (sockets.length === 0 ? undefined : sockets[which % sockets.length]);

  const join = async (open: boolean, from: string, part: number) => {
    const viewer = topics.join({ maxBackpressure: 250_000 });
    viewer.takesAll(open);
    const old = sockets.find((socket) => socket.viewer.closed?.code === 4408);
    const told =
      from === 'back' && old
        ? (JSON.parse(old.viewer.closed?.reason ?? '{}') as { epoch: string; seq: number })
        : null;
    const position = told
      ? { after: told.seq, epoch: told.epoch }
      : from === 'start'
        ? {}
        : from === 'foreign'
          ? { after: 3, epoch: '9.9' }
          : {
              after: from === 'within' ? Math.floor(part * last) : from === 'end' ? last : last + 3,
              epoch: fanOut.epoch(),
            };
    const missing = from === 'trusted' ? null : fanOut.missing(position);
    const again = missing && {
      ...missing,
      frames: await older.read(missing.epoch, missing.after, missing.upTo),
    };
    const member = fanOut.join(viewer, position, subscribedFacts, from === 'trusted', again);
    const recovery = viewer.received[0]?.data.recovery as string;
    seen.recoveries.add(recovery);
    const lossless = open && recovery === 'exact' && from !== 'trusted' && kept !== 'some';
    sockets.push({ viewer, member, after: position.after ?? 0, left: false, lossless });
  };

  for (const one of steps) {
    if (one.do === 'frames') {
      const frames = Array.from({ length: one.count }, (_, index) => ({
        seq: ++last,
        kind: one.state && index === 0 ? 'on_state_update' : 'on_llm_stream',
        data: {
          content: `${last} ${'x'.repeat(one.size)}`,
          message: Math.floor(last / 40),
          epoch: now.epoch,
        },
      }));
      for (const { seq, kind, data } of frames) now.frames.set(seq, frameText(seq, kind, data));
      release(...frames);
      clock.now += 100;
    } else if (one.do === 'skip') {
      for (let index = 1; index <= one.count; index++) now.missing.add(last + index);
      last += one.count;
      fanOut.skip(last - one.count + 1, last);
    } else if (one.do === 'epoch') {
      now = begin(`1.${++epochs}`);
      fanOut.beginEpoch(now.epoch, { event_type: 'on_reset', data: { epoch: now.epoch, reason: 'x' } });
    } else if (one.do === 'announce') fanOut.announce({ event_type: 'on_reconnecting', data: {} });
    else if (one.do === 'strays') fanOut.resetStrays(last);
    else if (one.do === 'sweep') {
      clock.now += one.ms;
      fanOut.sweep(clock.now);
    } else if (one.do === 'join') await join(one.open, one.from, one.part);
    else {
      const socket = pick(one.which);
      if (socket === undefined) continue;
      if (one.do === 'leave') {
        socket.member.leave();
        socket.left = true;
      } else if (one.do === 'take') {
        socket.viewer.take(one.bytes);
        if (one.drain) socket.member.drained();
      } else {
        socket.lossless = false;
        socket.viewer.takesAll(one.open);
        if (one.open) socket.member.drained();
      }
    }
    // What is read again comes in a later turn.
    if (one.do !== 'frames') await turn();
  }

  const state: [number, string][] = end.closed ? [[1, 'on_state_update']] : [];
  const next = end.closed ? 2 : last + 1 + end.gap;
  const tail: [number, string][] = end.error
    ? [
        [next, 'error'],
        [next + 1, 'end'],
      ]
    : [[next, 'end']];
  const final = lastFramesOf(end.closed ? '1.closed' : now.epoch, ...state, ...tail);
  if (!end.closed) for (let number = last + 1; number < next; number++) now.missing.add(number);
  const told = end.closed ? begin(final.epoch) : now;
  for (const { number, bytes } of final.frames) told.frames.set(number, bytes.toString());
  fanOut.finish(final);
  await join(true, 'start', 0);
  await join(true, 'back', 0);
  for (let round = 0; round < 40; round++) {
    for (const { viewer, member } of sockets) {
      viewer.takesAll(true);
      member.drained();
    }
    await turn();
  }
  seen.merged += counts.merged;
  seen.leftOut += counts.leftOut;

  for (const [index, { viewer, after, left, lossless }] of sockets.entries()) {
    const account = accountOf(viewer, released, after, lossless);
    if (account.fault !== null) return `viewer ${index}: ${account.fault}`;
    if (left) continue;
    if (viewer.closed === null) return `viewer ${index} was not closed`;
    if (viewer.closed.code === 4408) {
      const { epoch, seq } = JSON.parse(viewer.closed.reason) as { epoch: string; seq: number };
      // A viewer that dropped the word of an epoch knows only the one before.
      const same = epoch === account.epoch && seq === account.position;
      if (!same && seq !== 0)
        return `viewer ${index}: 4408 says ${epoch} ${seq}, it has ${account.epoch} ${account.position}`;
      continue;
    }
    // One that came back with the number of the end gets no second one.
    const had = viewer.received.length === 1 && account.position === told.frames.size;
    if (account.ends !== 1 && !had && account.position !== next + (end.error ? 1 : 0))
      return `viewer ${index} got ${account.ends} ends`;
  }
  return fanOut.size() === 0 ? null : 'somebody is still there';
}

test('whatever happens, every number reaches every viewer once, as a frame or inside a range, and one end', async (t) => {
  const seen: Seen = { merged: 0, leftOut: 0, reads: 0, recoveries: new Set() };
  const kept = fc.constantFrom('all' as const, 'some' as const, 'none' as const);
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 80, size: 'max' }),
      ending,
      kept,
      async (steps, end, kept) => {
        const fault = await faultOf(steps, end, kept, seen);
        if (fault !== null) throw new Error(fault);
      },
    ),
    { numRuns: 400 },
  );
  t.ok(seen.merged > 0 && seen.leftOut > 0 && seen.reads > 0, JSON.stringify(seen));
  t.strictSame([...seen.recoveries].sort(), ['compacted', 'exact', 'reset']);
});
