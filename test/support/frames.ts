import { createFrameBatch, type FrameBatch, FrameKind, pushFrame } from '../../src/streams/frame-batch.js';

const kinds: Record<string, FrameKind> = {
  on_llm_stream: FrameKind.token,
  on_state_update: FrameKind.state,
  error: FrameKind.error,
  end: FrameKind.end,
};

/** One frame as our runtime writes it; without a number where `seq` is 0. */
export function frameText(
  seq: number,
  eventType = 'on_llm_stream',
  data: unknown = { content: `t${seq}` },
): string {
  return JSON.stringify({ ...(seq > 0 ? { seq } : {}), event_type: eventType, data });
}

/** Texts as one read of a socket: the frames share one ArrayBuffer, two bytes apart. */
export function batchOf(texts: readonly (string | Buffer)[]): FrameBatch {
  const batch = createFrameBatch();
  const pieces = texts.flatMap((text) => [Buffer.from([0x81, 0]), Buffer.from(text)]);
  const whole = Buffer.concat(pieces);
  let at = 0;
  for (const piece of pieces) {
    if (piece.length !== 2 || piece[0] !== 0x81) pushFrame(batch, whole.subarray(at, at + piece.length));
    at += piece.length;
  }
  return batch;
}

/** As behind the numbering: kinds and numbers are filled in. */
export function numberedBatch(frames: readonly { seq: number; kind?: string; data?: unknown }[]): FrameBatch {
  const batch = batchOf(frames.map(({ seq, kind, data }) => frameText(seq, kind, data)));
  frames.forEach(({ seq, kind = 'on_llm_stream' }, index) => {
    batch.numbers[index] = seq;
    batch.kinds[index] = kinds[kind] ?? FrameKind.other;
  });
  return batch;
}
