import type { NumberedFrame } from './replay-window.js';

/** Frames that the window no longer holds, read again from where they still are: the runtime's own log, or the transcript. */
export interface OlderFrames {
  /**
   * Frames of `epoch` in order, from the lowest number above `after` that can be had, none above `upTo`; a part of them
   * where they are many (the caller asks again behind the last). Empty where nothing can be had. Never rejects.
   */
  read(epoch: string, after: number, upTo: number): Promise<readonly NumberedFrame[]>;
}
