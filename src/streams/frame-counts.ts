import { type FrameBatch, kindLabels } from './frame-batch.js';

/**
 * Frames sent, by kind, in plain numbers: a label of a metric costs more than the frame. They are moved to
 * `websocket_frames_sent_total` when somebody scrapes.
 */
export interface FrameCounts {
  add(batch: FrameBatch, upTo: number, viewers: number): void;
  /** What was added since the last call, by label. */
  take(): Record<string, number>;
}

export function createFrameCounts(): FrameCounts {
  const counts = new Float64Array(kindLabels.length);
  return {
    add(batch, upTo, viewers) {
      for (let index = 0; index < upTo; index++) {
        const kind = batch.kinds[index] ?? 0;
        counts[kind] = (counts[kind] ?? 0) + viewers;
      }
    },
    take() {
      const taken = Object.fromEntries(kindLabels.map((label, kind) => [label, counts[kind] ?? 0]));
      counts.fill(0);
      return taken;
    },
  };
}
