import {
  createFanOut,
  type FanOut,
  type LastFrames,
  type SubscribedFacts,
} from '../../src/streams/fan-out.js';
import { createReplayWindow, createWindowBudget } from '../../src/streams/replay-window.js';
import { createFakeTopics, type FakeTopics } from './fake-viewer.js';
import { frameText, numberedBatch } from './frames.js';

export interface FanOutFixture {
  fanOut: FanOut;
  topics: FakeTopics;
  clock: { now: number };
  resumes: string[];
  slowCloses(): number;
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
  options: { epoch?: string; budgetBytes?: number; threadBytes?: number } = {},
): FanOutFixture {
  const window = createReplayWindow(
    createWindowBudget({ processBytes: 1 << 30, threadBytes: options.threadBytes ?? 1 << 24 }),
  );
  const topics = createFakeTopics();
  const clock = { now: 0 };
  const resumes: string[] = [];
  let slow = 0;
  const fanOut = createFanOut({
    topic: 'thread',
    firstEpoch: '1.1',
    epoch: options.epoch ?? '1.1',
    window,
    publish: topics.publish,
    budgetBytes: options.budgetBytes ?? 10_000,
    stuckMs: 1000,
    now: () => clock.now,
    onResume: (recovery) => resumes.push(recovery),
    onSlowClose: () => {
      slow++;
    },
  });
  return {
    fanOut,
    topics,
    clock,
    resumes,
    slowCloses: () => slow,
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
