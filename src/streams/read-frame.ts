import { catchError, filter, firstValueFrom, map, of, timeout } from 'rxjs';
import { createFrameDecoder } from './decode-frame.js';
import { FrameKind } from './frame-batch.js';
import type { RuntimeFrames } from './runtime-socket.js';
import type { StreamPosition } from './stream-position.js';
import type { SocketSignal } from './stream-signals.js';

/** The epoch that an `on_open` tells; null where it tells none. */
const epochOf = (value: Record<string, unknown> | null): unknown =>
  (value?.data as Record<string, unknown> | undefined)?.epoch ?? null;

/**
 * Reads one frame of a run's log again, on a connection of its own. Resolves with a copy of its bytes, or null where
 * the log of that epoch does not have it, the runtime is away, or it does not come in time.
 *
 * @param position stands right before the frame
 */
export function readFrame(
  frames: RuntimeFrames,
  threadId: string,
  position: StreamPosition,
  deadlineMs: number,
): Promise<Buffer | null> {
  const decoder = createFrameDecoder();
  const number = position.after + 1;
  /** Undefined = it may still come. */
  function found(signal: SocketSignal): Buffer | null | undefined {
    if (signal.type === 'connected') return undefined;
    if (signal.type !== 'frames') return null;
    for (let index = 0; index < signal.batch.length; index++) {
      const bytes = signal.batch.frames[index] as Buffer;
      const kind = decoder.decode(bytes);
      // A foreign epoch is replayed from its start: the same number is another frame there.
      if (kind === FrameKind.opening && epochOf(decoder.value) !== position.epoch) return null;
      if (decoder.number === number) return Buffer.from(bytes);
      if (decoder.number > number) return null;
    }
    return undefined;
  }
  const answers = frames.frames(threadId, position).pipe(
    map(found),
    filter((answer) => answer !== undefined),
    timeout({ first: deadlineMs }),
    // A log that cannot be read now is asked for again by whoever needs it.
    catchError(() => of(null)),
  );
  return firstValueFrom(answers, { defaultValue: null });
}
