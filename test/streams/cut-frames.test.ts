import fc from 'fast-check';
import { test } from 'tap';
import { createFrameCutter } from '../../src/streams/cut-frames.js';

interface Sent {
  /** First byte: FIN, reserved bits, opcode. */
  first: number;
  length: number;
  masked: boolean;
}

const TEXT = 0x81;
const plain = (length: number): Sent => ({ first: TEXT, length, masked: false });

function encode({ first, length, masked }: Sent, fill: number): Buffer {
  const head = Buffer.alloc(14);
  head[0] = first;
  let size = 2;
  if (length < 126) head[1] = length;
  else if (length < 65_536) {
    head[1] = 126;
    size = head.writeUInt16BE(length, 2);
  } else {
    head[1] = 127;
    size = head.writeBigUInt64BE(BigInt(length), 2);
  }
  if (masked) {
    head[1] = (head[1] ?? 0) | 0x80;
    size += 4;
  }
  return Buffer.concat([head.subarray(0, size), Buffer.alloc(length, fill)]);
}

/** What comes of a stream that is read in pieces: cut frames and the library's bytes, in their order. */
function cutIn(pieces: readonly Buffer[]) {
  const told: { cut: boolean; bytes: Buffer }[] = [];
  const cutter = createFrameCutter({
    frame: (payload) => void told.push({ cut: true, bytes: Buffer.from(payload) }),
    other: (bytes) => void told.push({ cut: false, bytes: Buffer.from(bytes) }),
  });
  for (const piece of pieces) cutter.cut(piece);
  return told;
}

test('whole plain text frames are cut out, whatever the form of their length', async (t) => {
  const lengths = [0, 1, 125, 126, 700, 65_535, 65_536];
  const told = cutIn([Buffer.concat(lengths.map((length) => encode(plain(length), 7)))]);
  t.same(
    told.map(({ cut, bytes }) => [cut, bytes.length]),
    lengths.map((length) => [true, length]),
  );
  t.ok(told.every(({ bytes }) => bytes.every((byte) => byte === 7)));
});

test('what is not plain goes to the library byte for byte, at its place among the others', async (t) => {
  const odd: Record<string, Sent> = {
    binary: { first: 0x82, length: 3, masked: false },
    ping: { first: 0x89, length: 4, masked: false },
    masked: { first: TEXT, length: 5, masked: true },
    'a reserved bit': { first: 0xc1, length: 6, masked: false },
  };
  for (const [name, sent] of Object.entries(odd)) {
    const bytes = encode(sent, 9);
    const told = cutIn([Buffer.concat([encode(plain(1), 1), bytes, encode(plain(2), 2)])]);
    t.same(
      told.map(({ cut }) => cut),
      [true, false, true],
      name,
    );
    t.same(told[1]?.bytes, bytes, name);
  }
});

test('nothing is cut out of a message in several frames, nor behind a close', async (t) => {
  const first = encode({ first: 0x01, length: 3, masked: false }, 1);
  const ping = encode({ first: 0x89, length: 0, masked: false }, 0);
  const wrong = encode(plain(3), 2);
  const last = encode({ first: 0x80, length: 3, masked: false }, 3);
  const close = encode({ first: 0x88, length: 2, masked: false }, 4);
  const told = cutIn([Buffer.concat([first, ping, wrong, last, encode(plain(4), 5), close, wrong])]);
  t.same(told, [
    { cut: false, bytes: Buffer.concat([first, ping, wrong, last]) },
    { cut: true, bytes: Buffer.alloc(4, 5) },
    { cut: false, bytes: Buffer.concat([close, wrong]) },
  ]);
});

test('bytes that the library has already are followed, so that the next frame is cut at its place', async (t) => {
  const told: string[] = [];
  const cutter = createFrameCutter({
    frame: (payload) => void told.push(`frame ${payload.length}`),
    other: (bytes) => void told.push(`other ${bytes.length}`),
  });
  const stream = Buffer.concat([encode(plain(200), 1), encode(plain(300), 2), encode(plain(400), 3)]);
  cutter.pass(stream.subarray(0, 206));
  cutter.cut(stream.subarray(206));
  t.same(told, ['other 302', 'frame 400']);
});

test('however frames are sliced into reads, no byte is lost, doubled or moved', async () => {
  const sent = fc.record({
    first: fc.constantFrom(TEXT, TEXT, TEXT, TEXT, 0x82, 0x89, 0x8a, 0x01, 0x00, 0x80),
    length: fc.oneof(fc.integer({ min: 0, max: 140 }), fc.constantFrom(126, 700, 65_535, 65_536, 70_000)),
    masked: fc.nat(9).map((chance) => chance === 0),
  });
  fc.assert(
    fc.property(
      fc.array(sent, { maxLength: 30 }),
      fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70_000 })), {
        minLength: 1,
        maxLength: 40,
      }),
      (frames, sizes) => {
        const encoded = frames.map((frame, index) => encode(frame, index));
        const stream = Buffer.concat(encoded);
        const pieces: Buffer[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1;
          pieces.push(stream.subarray(at, at + size));
          at += size;
        }
        const told = cutIn(pieces);
        const whole = told.map(({ cut, bytes }) =>
          cut ? encode(plain(bytes.length), bytes[0] ?? 0) : bytes,
        );
        return Buffer.concat(whole).equals(stream);
      },
    ),
    { numRuns: 500 },
  );
});
