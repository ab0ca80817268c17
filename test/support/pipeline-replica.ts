import { createViewerEntrance } from '../../src/actors/viewer-entrance.js';
import { createFrameCounts } from '../../src/streams/frame-counts.js';
import type { LastFrames } from '../../src/streams/released-log.js';
import { createWindowBudget } from '../../src/streams/replay-window.js';
import type { RunEnding } from '../../src/streams/stream-signals.js';
import { createThreadPipeline, type ThreadPipeline } from '../../src/streams/thread-pipeline.js';
import type { ViewerPosition } from '../../src/streams/viewer.js';
import { createFakeTopics, type FakeViewer } from './fake-viewer.js';
import type { LogConnection, RuntimeLog } from './runtime-log.js';
import type { VirtualClock } from './virtual-clock.js';

type Attach = ReturnType<typeof createViewerEntrance>;

/** What one process has of a thread: the whole way from the log to its viewers, without a socket and without a row. */
export interface PipelineReplica {
  readonly pipeline: ThreadPipeline;
  /** How the run ended, once this replica has heard of it. */
  ending(): RunEnding | null;
  connection(): LogConnection | null;
  /** The owner has become a reader, or the other way: the same attempt is read on. */
  readAnew(): void;
  join(position: ViewerPosition): { viewer: FakeViewer; attachment: ReturnType<Attach> };
  finish(last: LastFrames): void;
  /** The process ends: its viewers are sent away. */
  stop(): void;
}

export interface PipelineReplicaOptions {
  /** Nobody can have read the run before. */
  first: boolean;
  /** The epoch that the row names. */
  epoch: string;
  /** The thread has ended: no stream is opened any more. */
  last: LastFrames | null;
  viewerBudgetBytes: number;
}

export function createPipelineReplica(
  log: RuntimeLog,
  clock: VirtualClock,
  options: PipelineReplicaOptions,
): PipelineReplica {
  const topics = createFakeTopics();
  const port = log.port();
  let heard: RunEnding | null = null;
  let stopped = false;
  const pipeline = createThreadPipeline({
    threadId: 'thread',
    firstEpoch: '1.1',
    epoch: options.epoch,
    readBefore: options.first ? null : 1,
    runtimeFrames: port,
    client: { getState: async () => ({ kind: 'away' }) },
    windowBudget: createWindowBudget({ processBytes: 1 << 20, threadBytes: 64 * 1024 }),
    older: null,
    publish: topics.publish,
    viewerBudgetBytes: options.viewerBudgetBytes,
    viewerStuckMs: 30_000,
    frameCounts: createFrameCounts(),
    reconnectDelayMs: () => 50,
    sleep: clock.sleep,
    now: clock.now,
    randomEpoch: () => 'random',
    onResume: () => undefined,
    onStep: () => undefined,
    onMerged: () => undefined,
    onLeftOut: () => undefined,
    onRead: () => undefined,
  });
  if (options.last !== null) pipeline.finish(options.last);
  const read = () =>
    pipeline.read({ attempt: 1, runtimeThreadId: 'run' }).subscribe((fact) => {
      if (fact.type === 'runtime.ended' || fact.type === 'runtime.failed') heard = fact.ending;
      clock.wake();
    });
  let reading = options.last === null ? read() : null;
  const attach = createViewerEntrance({
    pipeline,
    facts: () => ({ thread_id: 'thread', proposal_id: 'proposal', status: 'processing', phase: 'streaming' }),
    isFinal: () => pipeline.finished(),
    isStopped: () => stopped,
    rowEpoch: () => pipeline.fanOut.epoch(),
    happens: clock.happens,
    sleep: clock.sleep,
    now: clock.now,
    sendToRun: () => false,
  });
  return {
    pipeline,
    ending: () => heard,
    connection: () => port.connection(),
    join(position) {
      const viewer = topics.join({ maxBackpressure: 250_000 });
      return { viewer, attachment: attach(viewer, position) };
    },
    readAnew() {
      if (reading === null) return;
      reading.unsubscribe();
      reading = read();
    },
    finish(last) {
      reading?.unsubscribe();
      pipeline.finish(last);
      clock.wake();
    },
    stop() {
      stopped = true;
      reading?.unsubscribe();
      pipeline.close();
      clock.wake();
    },
  };
}
