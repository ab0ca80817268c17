/*
 *  runtime.frames(threadId, position)        one connection, cold            runtime-socket.ts
 *        │ number                            kind, seq, epoch, holes         decode-frame.ts, number-frames.ts
 *        │ reconnecting                      again, at the last position     reconnect.ts
 *        ├─► keepNewestFiles                 bytes of the last state update  newest-files.ts
 *        ├─► releaseToViewers                window, then topic              replay-window.ts, fan-out.ts
 *        └─► facts                           what the machine hears          lifecycle-events.ts
 *
 * Frames go by here once, a batch for each read of the socket; nothing below is called for each token but
 * the decoder and the publish.
 */
import { defer, finalize, type Observable, tap } from 'rxjs';
import { createFanOut, type FanOut, type FanOutDeps } from './fan-out.js';
import { type FrameBatch, FrameKind } from './frame-batch.js';
import type { FrameCounts } from './frame-counts.js';
import { createLifecycleEvents } from './lifecycle-events.js';
import { createNewestFiles, type NewestFiles } from './newest-files.js';
import { createNumbering, type Numbering } from './number-frames.js';
import type { OlderFrames } from './older-frames.js';
import { reconnecting } from './reconnect.js';
import type { LastFrames } from './released-log.js';
import { createReplayWindow, type NumberedFrame, type WindowBudget } from './replay-window.js';
import type { DeepAgentsRuntimeClient } from './runtime-client.js';
import type { RuntimeFrames } from './runtime-socket.js';
import type { LifecycleFact, StreamSignal } from './stream-signals.js';
import type { Publish } from './viewer.js';

export interface ThreadPipelineDeps
  extends Pick<FanOutDeps, 'onResume' | 'onStep' | 'onMerged' | 'onLeftOut'> {
  threadId: string;
  firstEpoch: string;
  epoch: string;
  /** An attempt that another replica, or this one before its restart, may have read already; null = none. */
  readBefore: number | null;
  runtimeFrames: RuntimeFrames;
  client: Pick<DeepAgentsRuntimeClient, 'getState'>;
  windowBudget: WindowBudget;
  /** Where frames are that have left the window. */
  older: OlderFrames | null;
  publish: Publish;
  viewerBudgetBytes: number;
  viewerStuckMs: number;
  frameCounts: FrameCounts;
  reconnectDelayMs: (failures: number) => number;
  sleep: (milliseconds: number) => Promise<void>;
  now: () => number;
  randomEpoch: () => string;
  /** A read of the socket brought frames. */
  onRead: () => void;
}

/** One attempt as the runtime knows it. */
export interface RunToRead {
  attempt: number;
  runtimeThreadId: string;
}

/** Everything between a thread's runtime socket and its viewers and files, for as long as its actor lives. */
export interface ThreadPipeline {
  /** Reads one attempt until it has ended; unsubscribing ends the connection. */
  read(run: RunToRead): Observable<LifecycleFact>;
  fanOut: FanOut;
  older: OlderFrames | null;
  newestFiles: NewestFiles;
  /** Reads of the socket that brought frames, ever: it stands still when the run does. */
  reads(): number;
  /** A frame was unreadable or missing: the files come from the runtime's state. */
  damaged(): boolean;
  /** Whether this replica has heard of the present attempt's log. */
  known(): boolean;
  /** The newest number of the present log by the runtime's own word; 0 where it gave none. */
  told(): number;
  /** A connection to the run is open, and has said which log it reads. */
  hears(): boolean;
  /**
   * The frames behind `after` that the window holds, up to the one that makes them `bytes` or more. Good until the next
   * frame comes, or the pipeline is closed.
   */
  held(after: number, bytes: number): NumberedFrame[];
  /** Hands a viewer's message to the run; false where no connection is open. */
  send(message: Buffer | string): boolean;
  /** A frame of the present attempt's log, copied: from the window, else from the runtime; null where neither has it. */
  readAgain(number: number): Promise<Buffer | null>;
  /** Another attempt begins: epoch `<attempt>.1` until the runtime says otherwise. */
  beginAttempt(attempt: number, announcement: Parameters<FanOut['announce']>[0]): void;
  finish(last: LastFrames): void;
  finished(): boolean;
  close(): void;
}

export function createThreadPipeline(deps: ThreadPipelineDeps): ThreadPipeline {
  const window = createReplayWindow(deps.windowBudget);
  const newestFiles = createNewestFiles();
  const fanOut = createFanOut({
    topic: deps.threadId,
    firstEpoch: deps.firstEpoch,
    epoch: deps.epoch,
    window,
    older: deps.older,
    publish: deps.publish,
    budgetBytes: deps.viewerBudgetBytes,
    stuckMs: deps.viewerStuckMs,
    now: deps.now,
    onResume: deps.onResume,
    onStep: deps.onStep,
    onMerged: deps.onMerged,
    onLeftOut: deps.onLeftOut,
  });
  let reads = 0;
  let hurt = false;
  let known = false;
  let hears = false;
  let told = 0;
  let finished = false;
  /** Viewers were told that the run is being reconnected, once for each outage. */
  let away = false;
  /** The run's `error` or `end` has come: it is withheld, and so is whatever comes after it. */
  let ending = false;
  let reading: (RunToRead & { numbering: Numbering }) | null = null;
  let sendToRun: ((message: Buffer | string) => boolean) | null = null;

  function keepNewestFiles(signal: StreamSignal): void {
    if (signal.type === 'epoch' && signal.reset) {
      if (signal.reason === 'numbers_lost') newestFiles.unnumber();
      else newestFiles.clear();
    }
    if (signal.type !== 'frames' || ending) return;
    const { kinds, frames, numbers, length } = signal.batch;
    for (let index = 0; index < length; index++) {
      const kind = kinds[index];
      if (kind === FrameKind.error || kind === FrameKind.end) return;
      if (kind === FrameKind.state) newestFiles.take(frames[index] as Buffer, numbers[index] ?? 0);
    }
  }

  function releaseToViewers(signal: StreamSignal): void {
    switch (signal.type) {
      case 'frames':
        reads++;
        deps.onRead();
        return release(signal.batch);
      case 'connected':
        sendToRun = signal.send;
        return;
      case 'epoch':
        away = false;
        known = true;
        hears = true;
        told = signal.runtimeEpoch === null ? 0 : signal.lastSeq;
        if (signal.reset) ending = false;
        if (signal.epoch === fanOut.epoch()) {
          if (signal.runtimeEpoch !== null) fanOut.resetStrays(signal.lastSeq);
          return;
        }
        return fanOut.beginEpoch(signal.epoch, {
          event_type: 'on_reset',
          data: { epoch: signal.epoch, reason: signal.reason },
        });
      case 'skipped':
        if (!ending) fanOut.skip(signal.first, signal.last);
        return;
      case 'lost':
        sendToRun = null;
        hears = false;
        if (!away) fanOut.announce({ event_type: 'on_reconnecting', data: {} });
        away = true;
        return;
      case 'unreadable':
        hurt = true;
        return;
      default:
        return;
    }
  }

  function release(batch: FrameBatch): void {
    if (ending) return;
    let to = 0;
    while (to < batch.length) {
      const kind = batch.kinds[to];
      ending = kind === FrameKind.error || kind === FrameKind.end;
      if (ending) break;
      to++;
    }
    if (to === 0) return;
    window.append(batch, 0, to);
    fanOut.publish(batch, 0, to);
    deps.frameCounts.add(batch, to, fanOut.size());
  }

  /** An owner that becomes a reader, or the other way, reads on behind what its viewers have. */
  function numberingOf(run: RunToRead): Numbering {
    ending = false;
    if (reading?.attempt === run.attempt && reading.runtimeThreadId === run.runtimeThreadId) {
      reading.numbering.rewind(fanOut.lastReleased());
      return reading.numbering;
    }
    known = false;
    hurt = false;
    const numbering = createNumbering({
      attempt: run.attempt,
      first: run.attempt !== deps.readBefore,
      randomEpoch: deps.randomEpoch,
      newestState: () => window.newestState()?.bytes ?? null,
    });
    reading = { ...run, numbering };
    return numbering;
  }

  function read(run: RunToRead): Observable<LifecycleFact> {
    return defer(() => {
      const numbering = numberingOf(run);
      const lifecycle = createLifecycleEvents();
      return reconnecting({
        connect: () => {
          const position = numbering.position();
          numbering.connect();
          return numbering.number(deps.runtimeFrames.frames(run.runtimeThreadId, position));
        },
        resumable: () => numbering.position() !== null,
        ended: lifecycle.ended,
        askState: () => deps.client.getState(run.runtimeThreadId),
        delayMs: deps.reconnectDelayMs,
        sleep: deps.sleep,
      }).pipe(
        // One step, not three: each costs as much as the rest of the way where a read brings one frame.
        tap((signal) => {
          keepNewestFiles(signal);
          releaseToViewers(signal);
          hurt ||= numbering.damaged();
        }),
        lifecycle.facts,
        finalize(() => {
          hears = false;
        }),
      );
    });
  }

  function held(after: number, bytes: number): NumberedFrame[] {
    const frames: NumberedFrame[] = [];
    let size = 0;
    for (let next = window.next(after); next !== null && size < bytes; next = window.next(next.number)) {
      frames.push(next);
      size += next.bytes.length;
    }
    return frames;
  }

  async function readAgain(number: number): Promise<Buffer | null> {
    const kept = window.newestState()?.number === number ? window.newestState() : window.next(number - 1);
    if (kept?.number === number) return Buffer.from(kept.bytes);
    const [read] = (await deps.older?.read(fanOut.epoch(), number - 1, number)) ?? [];
    return read === undefined ? null : Buffer.from(read.bytes);
  }

  return {
    read,
    readAgain,
    fanOut,
    older: deps.older,
    newestFiles,
    reads: () => reads,
    damaged: () => hurt,
    known: () => known,
    hears: () => hears,
    told: () => told,
    held,
    send: (message) => sendToRun?.(message) ?? false,
    beginAttempt(attempt, announcement) {
      newestFiles.clear();
      sendToRun = null;
      known = false;
      told = 0;
      fanOut.beginEpoch(`${attempt}.1`, announcement);
    },
    finish(last) {
      finished = true;
      sendToRun = null;
      fanOut.finish(last);
    },
    finished: () => finished,
    close() {
      fanOut.closeAll(1012, 'restarting');
      window.close();
    },
  };
}
