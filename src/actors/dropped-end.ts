import type { StateResult } from '../streams/runtime-client.js';
import type { RunEnding } from '../streams/stream-signals.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Logger } from '../telemetry/logger.js';
import type { WaitingEnd } from './waiting-commits.js';

export interface DroppedEndDeps {
  pipeline: Pick<ThreadPipeline, 'newestFiles' | 'readAgain'>;
  /** How the runtime ended the run, where it did. */
  ending: () => RunEnding | null;
  askState: () => Promise<StateResult>;
  sleep: (milliseconds: number) => Promise<void>;
  delayMs: (failures: number) => number;
  isStopped: () => boolean;
  log: Pick<Logger, 'info'>;
}

/** The newest state as it came, its files parsed of it, and the statement that carries them. */
const COPIES = 3;
const LEAST_BYTES = 1024;
/** How long a runtime may go on saying `running` of a run whose frame it does not give. */
const RUNNING_TRIES = 20;

/**
 * The end of a run as the budget of waiting commits sees it. The runtime keeps log and state until its clean-up is
 * confirmed, which no commit has ordered yet: what is dropped here can be had there.
 */
export function createDroppedEnd(deps: DroppedEndDeps): WaitingEnd {
  const { newestFiles } = deps.pipeline;
  /** Number of the state update that was dropped, 0 where it had none; null = nothing is missing. */
  let droppedFrame: number | null = null;
  let droppedState = false;

  /** From the runtime's log, where the frame has a number there. */
  async function readLog(): Promise<boolean> {
    if (droppedFrame === null || droppedFrame === 0 || droppedState) return false;
    const bytes = await deps.pipeline.readAgain(droppedFrame);
    if (bytes !== null) newestFiles.take(bytes, droppedFrame);
    return bytes !== null;
  }

  async function readState(): Promise<'read' | 'running' | 'away'> {
    const asked = await deps.askState();
    if (asked.kind === 'away') return 'away';
    // It had all that there was, and has nothing any more: the end goes without.
    if (asked.kind === 'not_found') return 'read';
    if (asked.state.status === 'running') return 'running';
    const files = asked.state.generated_files ?? null;
    const ending = deps.ending();
    if (droppedState && ending !== null) ending.state = asked.state;
    if (droppedFrame !== null && files !== null) {
      const seq = droppedFrame > 0 ? { seq: droppedFrame } : {};
      const frame = { ...seq, event_type: 'on_state_update', data: { files } };
      newestFiles.take(Buffer.from(JSON.stringify(frame)), droppedFrame);
    }
    return 'read';
  }

  return {
    bytes() {
      const frame = newestFiles.frame()?.bytes.length ?? 0;
      const state = deps.ending()?.state?.generated_files ?? null;
      const told = state === null ? 0 : Buffer.byteLength(JSON.stringify(state));
      return frame + told === 0 ? 0 : Math.max(LEAST_BYTES, COPIES * (frame + told));
    },
    drop() {
      const frame = newestFiles.frame();
      const ending = deps.ending();
      if (frame !== null) {
        droppedFrame = frame.number;
        newestFiles.clear();
      }
      if (ending?.state != null) {
        droppedState = true;
        ending.state = { ...ending.state, result: null, generated_files: null };
      }
      deps.log.info('an end waits for room among the commits that wait');
    },
    async regain() {
      if (droppedFrame === null && !droppedState) return;
      for (let running = 0, failures = 0; running < RUNNING_TRIES && !deps.isStopped(); failures++) {
        if (await readLog()) break;
        const told = await readState();
        if (told === 'read') break;
        if (told === 'running') running++;
        await deps.sleep(deps.delayMs(failures));
      }
      droppedFrame = null;
      droppedState = false;
    },
  };
}
