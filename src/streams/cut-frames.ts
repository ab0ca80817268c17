/**
 * Cuts what a WebSocket client reads into frames, as far as that is simple: a whole text message in one frame, unmasked,
 * that one read brought whole (RFC 6455, 5.2). Every other byte is handed to the library that knows the protocol.
 */
export interface FrameCutter {
  /** Takes what one read brought. Frames and other bytes come in the order in which they were read. */
  cut(chunk: Buffer): void;
  /** Follows bytes that the library was given already. */
  pass(chunk: Buffer): void;
}

export interface CutFrames {
  /** The payload of a whole text message, a view of the chunk. */
  frame(payload: Buffer): void;
  /** Bytes for the library, a view of the chunk. */
  other(bytes: Buffer): void;
}

/** FIN and the opcode of text; no reserved bit. */
const WHOLE_TEXT = 0x81;
const FIN = 0x80;
const MASKED = 0x80;
const OPCODE = 0x0f;
const CLOSE = 0x8;
/** Control frames have this bit of the opcode. */
const CONTROL = 0x8;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
const LARGEST_HEADER = 14;

export function createFrameCutter(to: CutFrames): FrameCutter {
  /** Bytes still to come of a frame that the library reads. */
  let passing = 0;
  /** A message in several frames is under way. */
  let fragmented = false;
  /** The beginning of a header whose rest comes with the next read. */
  const header = Buffer.alloc(LARGEST_HEADER);
  let headerBytes = 0;

  /** A frame for the library begins: what follows from its first byte. */
  function begin(first: number): void {
    const opcode = first & OPCODE;
    // Nothing counts after it.
    if (opcode === CLOSE) passing = Number.POSITIVE_INFINITY;
    if ((opcode & CONTROL) === 0) fragmented = (first & FIN) === 0;
  }

  /** Puts together a header that came in pieces; answers where the rest of the chunk begins. */
  function gather(chunk: Buffer, from: number): number {
    let at = from;
    while (at < chunk.length) {
      header[headerBytes++] = chunk[at++] as number;
      if (headerBytes < 2 || headerBytes < headerLength(header[1] as number)) continue;
      passing = payloadLength(header, 0);
      begin(header[0] as number);
      headerBytes = 0;
      break;
    }
    return at;
  }

  function walk(chunk: Buffer, cuts: boolean): void {
    const end = chunk.length;
    let at = 0;
    /** Where the bytes that the library has not been given begin. */
    let rest = 0;
    while (at < end) {
      if (passing > 0) {
        const passed = Math.min(passing, end - at);
        passing -= passed;
        at += passed;
        continue;
      }
      const length = end - at < 2 ? LARGEST_HEADER : headerLength(chunk[at + 1] as number);
      if (headerBytes > 0 || end - at < length) {
        at = gather(chunk, at);
        continue;
      }
      const first = chunk[at] as number;
      const payload = payloadLength(chunk, at);
      const plain = first === WHOLE_TEXT && (chunk[at + 1] as number) < MASKED && !fragmented;
      if (!cuts || !plain || payload > end - at - length) {
        passing = length + payload;
        begin(first);
        continue;
      }
      if (rest < at) to.other(chunk.subarray(rest, at));
      to.frame(chunk.subarray(at + length, at + length + payload));
      at += length + payload;
      rest = at;
    }
    if (cuts && rest < end) to.other(chunk.subarray(rest, end));
  }

  return {
    cut: (chunk) => walk(chunk, true),
    pass: (chunk) => walk(chunk, false),
  };
}

function headerLength(second: number): number {
  const length = second & ~MASKED;
  const plain = length === LENGTH_16 ? 4 : length === LENGTH_64 ? 10 : 2;
  return second >= MASKED ? plain + 4 : plain;
}

function payloadLength(bytes: Buffer, at: number): number {
  const length = (bytes[at + 1] as number) & ~MASKED;
  if (length === LENGTH_16) return bytes.readUInt16BE(at + 2);
  if (length === LENGTH_64) return bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6);
  return length;
}
