import fc from 'fast-check';
import { Subject } from 'rxjs';
import { test } from 'tap';
import { createNumbering } from '../../src/streams/number-frames.js';
import type { SocketSignal } from '../../src/streams/stream-signals.js';
import { batchOf, frameText } from '../support/frames.js';

/** What goes wrong with one frame on one connection. */
const mishap = fc.constantFrom('none', 'none', 'none', 'none', 'lost', 'garbled', 'twice', 'noise', 'cut');
const connection = fc.record({
  /** The runtime was killed before: its log begins anew. */
  restarts: fc.nat(9).map((one) => one === 0),
  mishaps: fc.array(mishap, { maxLength: 12 }),
  readSize: fc.integer({ min: 1, max: 7 }),
});
const history = fc.record({
  length: fc.integer({ min: 1, max: 25 }),
  /** Numbers that the log itself does not have. */
  missing: fc.uniqueArray(fc.integer({ min: 1, max: 25 }), { maxLength: 4 }),
  connections: fc.array(connection, { maxLength: 8 }),
});
type Connection = Pick<typeof connection extends fc.Arbitrary<infer C> ? C : never, 'mishaps' | 'readSize'>;
const whole: Connection = { mishaps: [], readSize: 5 };

type History = typeof history extends fc.Arbitrary<infer H> ? H : never;

function faultOf({ length, missing, connections }: History): string | null {
  const numbering = createNumbering({
    attempt: 1,
    first: true,
    randomEpoch: () => 'r',
    newestState: () => null,
  });
  let log = 1;
  let fault: string | null = null;
  let expected = 1;
  let skipped = 0;
  const textOf = (seq: number) => frameText(seq, 'on_llm_stream', { log });
  const gone = new Set(missing.filter((seq) => seq < length));

  const connect = ({ mishaps, readSize }: Connection) => {
    const position = numbering.position();
    const resumes = position !== null && (position.epoch === null || position.epoch === log);
    const socket = new Subject<SocketSignal>();
    let closed = false;
    numbering.connect();
    const reading = numbering.number(socket).subscribe((signal) => {
      if (signal.type === 'hole') closed = true;
      else if (signal.type === 'epoch' && signal.reset) expected = 1;
      else if (signal.type === 'skipped') {
        if (signal.first !== expected || signal.last < signal.first)
          fault ??= `skipped ${signal.first} at ${expected}`;
        skipped += signal.last - signal.first + 1;
        expected = signal.last + 1;
      } else if (signal.type === 'frames') {
        for (let index = 0; index < signal.batch.length; index++) {
          if (closed) fault ??= 'a frame after the hole';
          const seq = signal.batch.numbers[index] ?? 0;
          if (seq !== expected) fault ??= `${seq} instead of ${expected}`;
          if (String(signal.batch.frames[index]) !== textOf(seq)) fault ??= `${seq} is another frame`;
          expected = seq + 1;
        }
      }
    });
    const texts: string[] = [];
    texts.push(frameText(0, 'on_open', { epoch: log, first_seq: 1, last_seq: length }));
    let turn = 0;
    for (let seq = (resumes ? position.after : 0) + 1; seq <= length; seq++) {
      if (gone.has(seq)) continue;
      const what = mishaps[turn++ % (mishaps.length + 5)] ?? 'none';
      if (what === 'cut') break;
      if (what === 'noise') texts.push('noise');
      if (what === 'lost') continue;
      texts.push(what === 'garbled' ? textOf(seq).slice(0, -5) : textOf(seq));
      if (what === 'twice') texts.push(textOf(seq));
    }
    for (let at = 0; at < texts.length; at += readSize) {
      socket.next({ type: 'frames', batch: batchOf(texts.slice(at, at + readSize)) });
    }
    reading.unsubscribe();
  };

  for (const one of connections) {
    if (one.restarts) log++;
    connect(one);
  }
  // Without mishaps each connection ends, or fills or tells one hole.
  for (let tries = 0; tries < 2 * gone.size + 2; tries++) connect(whole);
  if (fault !== null) return fault;
  if (numbering.last() !== length) return `stands at ${numbering.last()} of ${length}`;
  const unhurt =
    gone.size === 0 &&
    connections.every(({ mishaps }) => !mishaps.includes('garbled') && !mishaps.includes('lost'));
  if (unhurt && skipped > 0 && !connections.some(({ mishaps }) => mishaps.includes('noise')))
    return 'left out what was there';
  return skipped > 0 && !numbering.damaged() && log === 1 ? 'left out without damage' : null;
}

test('however a numbered log is lost, doubled and broken on its way, each number comes once or is told', async (t) => {
  let histories = 0;
  fc.assert(
    fc.property(history, (given) => {
      histories++;
      const fault = faultOf(given);
      if (fault !== null) throw new Error(fault);
    }),
    { numRuns: 1000 },
  );
  t.ok(histories >= 1000);
});
