import { BEFORE_STAMP, STAMP_DIGITS } from '../load/frame-maker.js';

/**
 * Reads WebSocket frames of a server from raw bytes and keeps none: of each text frame only the first bytes are
 * looked at, for its number, its kind and its stamp. A client library would cost more than the relay does.
 */
export interface FrameReader {
  /** Takes the next bytes of the stream, whatever their boundaries. */
  take(chunk: Uint8Array, from: number, to: number): void;
}

export interface FrameHearing {
  /** A numbered frame. `stamp` is 0 where it has none. */
  numbered(seq: number, kind: 'token' | 'end' | 'other', stamp: number): void;
  /** A text frame without a number; its first bytes. */
  unnumbered(head: string): void;
  ping(): void;
  close(code: number): void;
}

const OP_TEXT = 1;
const OP_CLOSE = 8;
const OP_PING = 9;
/** `{"seq":`, up to 16 digits, then up to the end of the stamp. */
const HEAD_BYTES = 7 + 16 + BEFORE_STAMP.length + STAMP_DIGITS;
const SEQ = Buffer.from('{"seq":');
const KIND = Buffer.from(',"event_type":"');
const TOKEN = Buffer.from(BEFORE_STAMP);
const END = Buffer.from('end"');
const ZERO = 0x30;

function startsWith(bytes: Uint8Array, at: number, to: number, expected: Uint8Array): boolean {
  if (at + expected.length > to) return false;
  for (let index = 0; index < expected.length; index++) {
    if (bytes[at + index] !== expected[index]) return false;
  }
  return true;
}

export function createFrameReader(hearing: FrameHearing): FrameReader {
  /** The beginning of a frame that was cut by the end of a chunk. */
  const kept = new Uint8Array(10 + HEAD_BYTES);
  let keptLength = 0;
  /** Bytes of the present frame that mean nothing to us. */
  let skip = 0;

  /** Reads one frame's beginning; returns its whole length, or 0 where more bytes are needed. */
  function read(bytes: Uint8Array, at: number, to: number): number {
    if (to - at < 2) return 0;
    let length = (bytes[at + 1] as number) & 0x7f;
    let payload = at + 2;
    if (length >= 126) {
      const size = length === 126 ? 2 : 8;
      if (to - payload < size) return 0;
      length = 0;
      for (let index = 0; index < size; index++) length = length * 256 + (bytes[payload + index] as number);
      payload += size;
    }
    const looked = Math.min(length, HEAD_BYTES);
    if (to - payload < looked) return 0;
    hear((bytes[at] as number) & 0x0f, bytes, payload, payload + looked);
    return payload - at + length;
  }

  function hear(opcode: number, bytes: Uint8Array, at: number, to: number): void {
    if (opcode === OP_PING) return hearing.ping();
    if (opcode === OP_CLOSE)
      return hearing.close(to - at < 2 ? 1005 : (bytes[at] as number) * 256 + (bytes[at + 1] as number));
    if (opcode !== OP_TEXT) return;
    if (!startsWith(bytes, at, to, SEQ)) return hearing.unnumbered(textOf(bytes, at, to));
    let cursor = at + SEQ.length;
    let seq = 0;
    for (let digit = (bytes[cursor] as number) - ZERO; digit >= 0 && digit <= 9; ) {
      seq = seq * 10 + digit;
      digit = (bytes[++cursor] as number) - ZERO;
    }
    if (startsWith(bytes, cursor, to, TOKEN)) {
      let stamp = 0;
      const from = cursor + TOKEN.length;
      for (let index = from; index < from + STAMP_DIGITS; index++)
        stamp = stamp * 10 + (bytes[index] as number) - ZERO;
      return hearing.numbered(seq, 'token', stamp);
    }
    const ends = startsWith(bytes, cursor, to, KIND) && startsWith(bytes, cursor + KIND.length, to, END);
    hearing.numbered(seq, ends ? 'end' : 'other', 0);
  }

  return {
    take(chunk, from, to) {
      let at = from;
      while (at < to) {
        if (skip > 0) {
          const passed = Math.min(skip, to - at);
          skip -= passed;
          at += passed;
          continue;
        }
        if (keptLength === 0) {
          const length = read(chunk, at, to);
          if (length > 0) {
            skip = length;
            continue;
          }
        }
        const more = Math.min(kept.length - keptLength, to - at);
        kept.set(chunk.subarray(at, at + more), keptLength);
        const length = read(kept, 0, keptLength + more);
        if (length === 0) {
          keptLength += more;
          at += more;
          continue;
        }
        skip = length - keptLength;
        keptLength = 0;
      }
    },
  };
}

const textOf = (bytes: Uint8Array, at: number, to: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + at, to - at).toString('latin1');
