import { createFanOut, type FanOut, type SubscribedFacts } from '../../src/streams/fan-out.js';
import type { OlderFrames } from '../../src/streams/older-frames.js';
import type { LastFrames } from '../../src/streams/released-log.js';
import { createReplayWindow, createWindowBudget } from '../../src/streams/replay-window.js';
import { createFakeTopics, type FakeTopics } from './fake-viewer.js';
import { frameText, numberedBatch } from './frames.js';

export interface FanOutFixture {
  fanOut: FanOut;
  topics: FakeTopics;
  clock: { now: number };
  resumes: string[];
  slowCloses(): number;
  /** Steps of the ladder, in order. */
  steps: string[];
  counts: { merged: number; leftOut: number };
  /** Frames that were released: kept, then published. */
  release(...frames: { seq: number; kind?: string; data?: unknown }[]): void;
}

export const subscribedFacts: SubscribedFacts = {
  thread_id: 'thread',
  proposal_id: 'proposal',
  status: 'processing',
  phase: 'streaming',
};

export function createFanOutFixture(
  options: {
    epoch?: string;
    budgetBytes?: number;
    threadBytes?: number;
    stuckMs?: number;
    older?: OlderFrames;
  } = {},
): FanOutFixture {
  const window = createReplayWindow(
    createWindowBudget({ processBytes: 1 << 30, threadBytes: options.threadBytes ?? 1 << 24 }),
  );
  const topics = createFakeTopics();
  const clock = { now: 0 };
  const resumes: string[] = [];
  const steps: string[] = [];
  const counts = { merged: 0, leftOut: 0 };
  let slow = 0;
  const fanOut = createFanOut({
    topic: 'thread',
    firstEpoch: '1.1',
    epoch: options.epoch ?? '1.1',
    window,
    older: options.older ?? null,
    publish: topics.publish,
    budgetBytes: options.budgetBytes ?? 10_000,
    stuckMs: options.stuckMs ?? 1000,
    now: () => clock.now,
    onResume: (recovery) => resumes.push(recovery),
    onStep(step) {
      steps.push(step);
      if (step === 'closed') slow++;
    },
    onMerged: (frames) => {
      counts.merged += frames;
    },
    onLeftOut: (frames) => {
      counts.leftOut += frames;
    },
  });
  return {
    fanOut,
    topics,
    clock,
    resumes,
    slowCloses: () => slow,
    steps,
    counts,
    release(...frames) {
      const batch = numberedBatch(frames);
      window.append(batch, 0, batch.length);
      fanOut.publish(batch, 0, batch.length);
    },
  };
}

/** Stored last frames: numbers and kinds. */
export function lastFramesOf(epoch: string, ...frames: [number: number, kind: string][]): LastFrames {
  return {
    epoch,
    frames: frames.map(([number, kind]) => ({
      number,
      bytes: Buffer.from(frameText(number, kind, { epoch })),
    })),
  };
}
