/**
 * Frames of a run that never ran, in the form and key order of the real runtime. Each is a template per kind and
 * number of digits; only the digits and the stamp are written anew, so that the sender is not what is measured.
 */

/** The plan's regular state updates. */
const STATE_EVERY = 500;
const TOKEN_BYTES = 700;
const HEAD = '{"seq":';
export const STAMP_DIGITS = 16;
/** What stands between the number and the stamp of a token. */
export const BEFORE_STAMP = ',"event_type":"on_llm_stream","data":{"content":"';

export type FrameRole = 'token' | 'state' | 'error' | 'end';

/** What the frame of that number is in a log of `total` frames, which a last state update (or an error) and `end` follow. */
export function roleOf(seq: number, total: number, cancelled: boolean): FrameRole {
  if (seq > total + 1) return 'end';
  if (seq === total + 1) return cancelled ? 'error' : 'state';
  return seq % STATE_EVERY === 0 ? 'state' : 'token';
}

/** The files of every run here, as `state` and the state updates tell them. */
export const loadFiles = Object.fromEntries(
  ['/definition.json', '/THE_SPEC/requirements.md', '/THE_CAST/LoadAgent.md'].map((path) => [
    path,
    {
      content: Array.from({ length: 8 }, (_, line) => `Line ${line + 1} of ${path}, the same in every run.`),
      created_at: '2026-01-01T00:00:00.000Z',
      modified_at: '2026-01-01T00:00:00.000Z',
    },
  ]),
);

const stateTail = `,"event_type":"on_state_update","data":${JSON.stringify({ files: loadFiles, todos: [] })}}`;
const errorTail = `,"event_type":"error","data":${JSON.stringify({ code: 'cancelled', message: 'The run was cancelled.', retryable: false })}}`;
const endTail = ',"event_type":"end","data":{}}';

function tokenTail(digits: number): string {
  const before = `${BEFORE_STAMP}${'0'.repeat(STAMP_DIGITS)} `;
  const after = '","node":"model_request","message_id":"run-00000000-0000-4000-8000-000000000000"}}';
  const filler = 'lorem ipsum dolor sit amet '.repeat(40);
  return before + filler.slice(0, TOKEN_BYTES - HEAD.length - digits - before.length - after.length) + after;
}

function writeDigits(into: Buffer, at: number, length: number, value: number): void {
  for (let index = at + length - 1; index >= at; index--) {
    into[index] = 0x30 + (value % 10);
    value = Math.floor(value / 10);
  }
}

export interface FrameMaker {
  /** The frame's bytes, valid until the next call. `stamp` is microseconds since 1970, told in tokens only. */
  make(seq: number, role: FrameRole, stamp: number): Buffer;
}

export function createFrameMaker(): FrameMaker {
  const templates = new Map<string, Buffer>();
  const tailOf = (role: FrameRole, digits: number): string => {
    if (role === 'token') return tokenTail(digits);
    return { state: stateTail, error: errorTail, end: endTail }[role];
  };
  return {
    make(seq, role, stamp) {
      const digits = Math.floor(Math.log10(seq)) + 1;
      const key = role + digits;
      let frame = templates.get(key);
      if (frame === undefined) {
        frame = Buffer.from(HEAD + '0'.repeat(digits) + tailOf(role, digits));
        templates.set(key, frame);
      }
      writeDigits(frame, HEAD.length, digits, seq);
      if (role === 'token')
        writeDigits(frame, HEAD.length + digits + BEFORE_STAMP.length, STAMP_DIGITS, stamp);
      return frame;
    },
  };
}

/** Microseconds since 1970, on a clock that all processes of this machine share. */
export const microsNow = (): number => Math.round((performance.timeOrigin + performance.now()) * 1000);
