import tap from 'tap';
import { createFrameMaker, roleOf } from '../../bench/load/frame-maker.js';
import { createFrameReader } from '../../bench/relaying/frame-reader.js';

/** One unmasked text frame, as servers send them. */
function framed(payload: Buffer): Buffer {
  const { length } = payload;
  const header = length < 126 ? [0x81, length] : [0x81, 126, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(header), payload]);
}

function logOf(total: number): Buffer {
  const maker = createFrameMaker();
  const own = Buffer.from('{"event_type":"on_subscribed","data":{}}');
  const frames = Array.from({ length: total + 2 }, (_, index) =>
    framed(
      Buffer.from(maker.make(index + 1, roleOf(index + 1, total, false), 1_700_000_000_000_000 + index)),
    ),
  );
  return Buffer.concat([framed(own), ...frames, Buffer.from([0x88, 2, 0x03, 0xe8])]);
}

function hearing() {
  const heard = { seqs: [] as number[], kinds: new Map<string, number>(), stamps: 0, own: 0, closed: 0 };
  const reader = createFrameReader({
    numbered(seq, kind, stamp) {
      heard.seqs.push(seq);
      heard.kinds.set(kind, (heard.kinds.get(kind) ?? 0) + 1);
      if (stamp === 1_700_000_000_000_000 + seq - 1) heard.stamps++;
    },
    unnumbered() {
      heard.own++;
    },
    ping: () => undefined,
    close(code) {
      heard.closed = code;
    },
  });
  return { heard, reader };
}

tap.test('The fast reader sees every number and stamp wherever the bytes are cut', async (t) => {
  const log = logOf(1010);
  for (const size of [1, 7, 64, 709, 710, 65_536]) {
    const { heard, reader } = hearing();
    const upTo = size === 1 ? 20_000 : log.length;
    for (let at = 0; at < upTo; at += size) reader.take(log, at, Math.min(at + size, upTo));
    t.ok(
      heard.seqs.every((seq, index) => seq === index + 1),
      `in order by ${size}`,
    );
    t.equal(heard.own, 1);
    if (size === 1) continue;
    t.equal(heard.seqs.length, 1012);
    t.equal(heard.closed, 1000);
    t.same(Object.fromEntries(heard.kinds), { token: 1008, other: 3, end: 1 });
    t.equal(heard.stamps, 1008);
  }
});

tap.test('Frames of the load are JSON in the order of keys that the runtime has', async (t) => {
  const maker = createFrameMaker();
  for (const seq of [1, 10, 499, 500, 123_456]) {
    const bytes = maker.make(seq, roleOf(seq, 200_000, false), 1_700_000_000_000_000);
    const frame = JSON.parse(bytes.toString()) as { seq: number; event_type: string };
    t.same(Object.keys(frame), ['seq', 'event_type', 'data']);
    t.equal(frame.seq, seq);
    t.equal(frame.event_type, seq === 500 ? 'on_state_update' : 'on_llm_stream');
    if (seq !== 500) t.equal(bytes.length, 700);
  }
});
