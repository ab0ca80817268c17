import { setTimeout as wait } from 'node:timers/promises';
import { createFrameCounts, type FrameCounts } from '../../src/streams/frame-counts.js';
import type { LastFrames } from '../../src/streams/released-log.js';
import { createWindowBudget, type WindowBudget } from '../../src/streams/replay-window.js';
import { createRuntimeLog } from '../../src/streams/runtime-log.js';
import { createRuntimeFrames } from '../../src/streams/runtime-socket.js';
import type { LifecycleFact } from '../../src/streams/stream-signals.js';
import { createThreadPipeline, type ThreadPipeline } from '../../src/streams/thread-pipeline.js';
import { createFakeTopics, type FakeViewer } from './fake-viewer.js';
import { frameText } from './frames.js';
import { createRuntimeClientFixture, jobOf } from './runtime-client-fixture.js';
import type { RuntimeScript, ScriptedRuntime } from './scripted-runtime.js';
import type { ScriptedThread } from './scripted-thread.js';
import { eventually } from './until.js';

export interface PipelineFixture {
  pipeline: ThreadPipeline;
  runtime: ScriptedRuntime;
  thread: ScriptedThread;
  budget: WindowBudget;
  counts: FrameCounts;
  /** Facts of all readings, in order. */
  facts: LifecycleFact[];
  /** Reads attempt 1; ends the reading before it, as the machine does. */
  read(attempt?: number): void;
  stopReading(): void;
  view(after?: number, epoch?: string): FakeViewer;
  /** How often a connection was opened again only after a delay. */
  delays(): number;
  /** Resolves when it is so; fails after a minute. */
  until(what: () => boolean): Promise<void>;
  /** As the actor does after its commit. */
  finish(number: number, epoch?: string): LastFrames;
}

/** One thread's pipeline on a scripted runtime over real sockets, with viewers in memory. */
export async function createPipelineFixture(
  teardown: (end: () => Promise<void>) => void,
  script: RuntimeScript = {},
): Promise<PipelineFixture> {
  const { runtime, client } = await createRuntimeClientFixture(teardown, script, {
    times: { frameBytes: 8 * 1024 * 1024 },
  });
  await client.invoke(jobOf('run'));
  const thread = runtime.threads.get('run');
  if (thread === undefined) throw new Error('the scripted runtime did not start the run');
  const budget = createWindowBudget({ processBytes: 1 << 28, threadBytes: 8 << 20 });
  const counts = createFrameCounts();
  const topics = createFakeTopics();
  let epochs = 0;
  let delays = 0;
  const runtimeFrames = createRuntimeFrames({
    open: ({ threadId, position }) =>
      client.streamWebSocket({ threadId, after: position?.after ?? null, epoch: position?.epoch ?? null }),
    pingIntervalMs: 5_000,
    frameBytes: 8 * 1024 * 1024,
  });
  const runtimeLog = createRuntimeLog({ runtimeFrames, timeoutMs: 30_000 });
  const pipeline = createThreadPipeline({
    threadId: 'public',
    firstEpoch: '1.1',
    epoch: '1.1',
    readBefore: null,
    runtimeFrames,
    client,
    windowBudget: budget,
    older: {
      read: async (epoch, after, upTo) =>
        (await runtimeLog.read({ threadId: 'run', epoch, after, upTo })).frames,
    },
    publish: topics.publish,
    viewerBudgetBytes: 1 << 20,
    viewerStuckMs: 1000,
    frameCounts: counts,
    reconnectDelayMs: () => {
      delays++;
      return 5;
    },
    sleep: async (milliseconds) => {
      await wait(milliseconds);
    },
    now: () => performance.now(),
    randomEpoch: () => `r${++epochs}`,
    onResume: () => undefined,
    onStep: () => undefined,
    onMerged: () => undefined,
    onLeftOut: () => undefined,
    onRead: () => undefined,
  });
  const facts: LifecycleFact[] = [];
  let stop: () => void = () => undefined;
  teardown(async () => {
    stop();
    pipeline.close();
  });
  return {
    pipeline,
    runtime,
    thread,
    budget,
    counts,
    facts,
    read(attempt = 1) {
      stop();
      const reading = pipeline
        .read({ attempt, runtimeThreadId: 'run' })
        .subscribe((fact) => facts.push(fact));
      stop = () => reading.unsubscribe();
    },
    stopReading: () => stop(),
    view(after, epoch) {
      const viewer = topics.join();
      const position = {
        ...(after === undefined ? {} : { after }),
        ...(epoch === undefined ? {} : { epoch }),
      };
      const facts = {
        thread_id: 'public',
        proposal_id: 'p',
        status: 'processing',
        phase: 'streaming',
      } as const;
      pipeline.fanOut.join(viewer, position, facts, false);
      return viewer;
    },
    delays: () => delays,
    until: (what) => eventually(String(what), what),
    finish(number, epoch = pipeline.fanOut.epoch()) {
      const last = { epoch, frames: [{ number, bytes: Buffer.from(frameText(number, 'end', {})) }] };
      pipeline.finish(last);
      return last;
    },
  };
}

/** Numbers that a viewer saw, own frames by their names. */
export function seenBy(viewer: FakeViewer): (number | string)[] {
  return viewer.received.slice(1).map(({ seq, event_type }) => seq ?? event_type);
}
