import { FrameKind } from './frame-batch.js';

/** State updates up to this size are checked whole when they come; larger ones once, at the end. */
const CHECKED_STATE_BYTES = 64 * 1024;

/** What `decode` found beside the kind; overwritten by the next call. */
export interface FrameDecoder {
  /**
   * Finds the kind of one frame. A frame that begins `{"seq":N,"event_type":"…"` and ends `}}` is read from
   * its first and last bytes; every other form (other key order, spaces, no number, cut off) is parsed.
   */
  decode(bytes: Buffer): FrameKind;
  /** The frame's own number, 0 where it has none. */
  number: number;
  /** The parsed frame where it was parsed, else null. */
  value: Record<string, unknown> | null;
}

const NAMES: readonly (readonly [string, FrameKind])[] = [
  ['on_llm_stream', FrameKind.token],
  ['on_state_update', FrameKind.state],
  ['on_tool_start', FrameKind.toolStart],
  ['on_tool_end', FrameKind.toolEnd],
  ['error', FrameKind.error],
  ['end', FrameKind.end],
  ['on_open', FrameKind.opening],
  ['on_rejected', FrameKind.rejected],
];
const KIND_OF = new Map(NAMES);
/** Each known name with its closing quote, as bytes, to be compared in place. */
const NAME_BYTES = NAMES.map(([name, kind]) => ({ bytes: Buffer.from(`${name}"`), kind }));
const HEAD = Buffer.from('{"seq":');
const MIDDLE = Buffer.from('"event_type":"');
const QUOTE = 0x22;
const COMMA = 0x2c;
const CLOSING_BRACE = 0x7d;
/** Digits of the largest number that is exact in JavaScript, less one. */
const MAX_DIGITS = 15;

function matches(bytes: Buffer, at: number, expected: Buffer): boolean {
  for (let index = 0; index < expected.length; index++) {
    if (bytes[at + index] !== expected[index]) return false;
  }
  return true;
}

/** Reads a frame whatever its form; null where it is not a JSON object. */
export function parseFrame(bytes: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

/** Whether `data` of a state update has the agreed shape; `files` may be absent. */
function isStateData(data: unknown): data is Record<string, unknown> {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return false;
  const files = (data as Record<string, unknown>).files;
  return files === undefined || (typeof files === 'object' && !Array.isArray(files));
}

/** A decoder for one socket. It keeps its last answer in fields, so that a frame costs no object. */
export function createFrameDecoder(): FrameDecoder {
  const decoder: FrameDecoder = { decode, number: 0, value: null };

  function decode(bytes: Buffer): FrameKind {
    decoder.value = null;
    const end = bytes.length - 1;
    if (bytes[end] !== CLOSING_BRACE || bytes[end - 1] !== CLOSING_BRACE || !matches(bytes, 0, HEAD)) {
      return decodeAnyForm(bytes);
    }
    let at = HEAD.length;
    let number = 0;
    let digit = (bytes[at] ?? 0) - 0x30;
    if (digit < 1) return decodeAnyForm(bytes);
    while (digit >= 0 && digit <= 9) {
      number = number * 10 + digit;
      digit = (bytes[++at] ?? 0) - 0x30;
    }
    if (at - HEAD.length > MAX_DIGITS || bytes[at] !== COMMA || !matches(bytes, at + 1, MIDDLE)) {
      return decodeAnyForm(bytes);
    }
    const kind = kindAt(bytes, at + 1 + MIDDLE.length);
    if (kind === FrameKind.unreadable) return decodeAnyForm(bytes);
    decoder.number = number;
    if (kind === FrameKind.state) {
      // A larger one that is cut off is found by the same parse that takes its files, at the end.
      if (bytes.length <= CHECKED_STATE_BYTES) return decodeAnyForm(bytes);
    } else if (kind >= FrameKind.error) return decodeAnyForm(bytes);
    return kind;
  }

  /** `unreadable` here only says that the first bytes do not tell. */
  function kindAt(bytes: Buffer, at: number): FrameKind {
    for (const name of NAME_BYTES) if (matches(bytes, at, name.bytes)) return name.kind;
    for (let index = at; index < at + 64 && index < bytes.length; index++) {
      const byte = bytes[index];
      if (byte === QUOTE) return index > at ? FrameKind.other : FrameKind.unreadable;
      if (byte === 0x5c) return FrameKind.unreadable;
    }
    return FrameKind.unreadable;
  }

  function decodeAnyForm(bytes: Buffer): FrameKind {
    decoder.number = 0;
    const value = parseFrame(bytes);
    if (value === null) return FrameKind.unreadable;
    const { event_type: name, seq, data } = value;
    if (typeof name !== 'string' || name === '') return FrameKind.unreadable;
    // Serializers of other languages write an absent number as null.
    if (seq !== undefined && seq !== null) {
      if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 1) return FrameKind.unreadable;
      decoder.number = seq;
    }
    const kind = KIND_OF.get(name) ?? FrameKind.other;
    if (kind === FrameKind.state && !isStateData(data)) return FrameKind.unreadable;
    decoder.value = value;
    return kind;
  }

  return decoder;
}

/**
 * The same frame with our number in front. Only for runtimes that do not number, or whose numbers mean
 * nothing on this connection: a frame that needs none is never copied.
 */
export function renumberFrame(bytes: Buffer, value: Record<string, unknown>, number: number): Buffer {
  if ('seq' in value) {
    const { seq: _, ...rest } = value;
    return Buffer.from(JSON.stringify({ seq: number, ...rest }));
  }
  const brace = bytes.indexOf(0x7b);
  return Buffer.concat([Buffer.from(`{"seq":${number},`), bytes.subarray(brace + 1)]);
}
