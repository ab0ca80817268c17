/**
 * What travels down the pipeline: the frames of one read of the runtime's socket, as parallel arrays.
 *
 * A batch belongs to its source and is used again for the next read, so a step works on it at once and
 * keeps nothing of it but bytes that it copies. One object per read instead of one per frame is what keeps
 * the cost per frame near that of a bare relay.
 */
export interface FrameBatch {
  /** The frames' bytes; frames of one read usually share one ArrayBuffer. */
  readonly frames: Buffer[];
  readonly kinds: FrameKind[];
  /** Number of each frame; 0 where it has none. */
  readonly numbers: number[];
  length: number;
}

/** What a frame is, as far as the orchestrator cares. */
export const FrameKind = {
  /** Any kind that is passed on and means nothing here, known or unknown. */
  other: 0,
  token: 1,
  state: 2,
  toolStart: 3,
  toolEnd: 4,
  error: 5,
  end: 6,
  /** `on_open` and `on_rejected` of the runtime: never counted, never for viewers. */
  opening: 7,
  rejected: 8,
  /** No JSON object, no kind, or a broken state update. */
  unreadable: 9,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** The label of `websocket_frames_sent_total` for each kind. */
export const kindLabels: readonly string[] = [
  'other',
  'on_llm_stream',
  'on_state_update',
  'on_tool_start',
  'on_tool_end',
  'error',
  'end',
];

export function createFrameBatch(): FrameBatch {
  return { frames: [], kinds: [], numbers: [], length: 0 };
}

/** Puts a frame at the end of a batch; `kind` and `number` are filled in by the steps that follow. */
export function pushFrame(
  batch: FrameBatch,
  bytes: Buffer,
  kind: FrameKind = FrameKind.other,
  number = 0,
): void {
  const at = batch.length++;
  batch.frames[at] = bytes;
  batch.kinds[at] = kind;
  batch.numbers[at] = number;
}

/** Slots that an emptied batch keeps: what they still hold is overwritten by the next reads. */
const KEPT_SLOTS = 256;

/** Empties a batch for the next read. There is one for all sockets, so what its slots hold on to is little. */
export function clearBatch(batch: FrameBatch): void {
  batch.length = 0;
  if (batch.frames.length > KEPT_SLOTS) batch.frames.length = KEPT_SLOTS;
}

/** The same slots, empty, to be filled while they are read: no step writes ahead of where it reads. */
export function sameSlots({ frames, kinds, numbers }: FrameBatch): FrameBatch {
  return { frames, kinds, numbers, length: 0 };
}
