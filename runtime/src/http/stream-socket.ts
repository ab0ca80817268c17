import { runtimeStreamMessage } from '@ide-orchestrator/protocol';
import secureJson from 'secure-json-parse';
import type { EventLog } from '../runs/event-log.js';
import type { LiveRun } from '../runs/live-run.js';
import type { StallWatch } from './stall-watch.js';
import type { WebSocket } from './uws.js';

/** Where a reader stood, as its query said. */
export interface Position {
  after: number;
  epoch: number | null;
}

/** What hangs on an open stream's socket. */
export interface StreamData {
  threadId: string;
  position: Position;
  log: () => Promise<EventLog | null>;
  reader: StreamReader | null;
}

export interface StreamReader {
  drain(): void;
  message(data: ArrayBuffer, isBinary: boolean): void;
  closed(): void;
  /** The process stops: the reader comes back to the next one. */
  restart(): void;
}

export interface StreamReaderDeps {
  run: (threadId: string) => LiveRun | undefined;
  cancel: (threadId: string) => Promise<void>;
  onClosedEarly: (reason: 'stalled' | 'log_dropped') => void;
  stalls: StallWatch;
}

/** What may wait in a socket; beyond, the reader's next frames stay in the log. */
export const readerBudgetBytes = 1024 * 1024;
/** Frames in one turn: thousands replayed to one reader would hold up all others. */
const framesPerTurn = 512;

/** Reads a run's log to a socket, at the reader's own pace. */
export function createStreamReader(ws: WebSocket<StreamData>, deps: StreamReaderDeps): StreamReader {
  const { threadId, position } = ws.getUserData();
  let log: EventLog | null = null;
  let next = 1;
  let open = true;
  let detach = (): void => {};
  let sentBytes = 0;
  const unwatch = deps.stalls.watch({
    sent: () => sentBytes,
    waiting: () => ws.getBufferedAmount(),
    onStall() {
      deps.onClosedEarly('stalled');
      // Not `end`: a close frame would wait behind what the reader does not take.
      ws.close();
    },
  });

  const end = (code: number, reason: string): void => {
    if (!open) return;
    detach();
    ws.end(code, reason);
  };

  const push = (): void => {
    if (!open || log === null) return;
    const source = log;
    if (source.state === 'abandoned') {
      end(1012, 'the log begins anew');
      return;
    }
    ws.cork(() => {
      const stop = Math.min(source.lastSeq, next + framesPerTurn - 1);
      while (open && next <= stop && ws.getBufferedAmount() < readerBudgetBytes) {
        const frame = source.frame(next);
        if (frame === undefined) {
          deps.onClosedEarly('log_dropped');
          end(1013, 'behind the log');
          return;
        }
        // Never 2 (dropped): the socket takes more than its budget and the largest frame together.
        ws.send(frame, false);
        sentBytes += frame.length;
        next++;
      }
    });
    if (!open) return;
    if (next <= source.lastSeq) {
      // Otherwise `drain` goes on.
      if (ws.getBufferedAmount() < readerBudgetBytes) setImmediate(push);
    } else if (source.state === 'ended') {
      end(1000, 'done');
    }
  };

  const begin = async (): Promise<void> => {
    const found = await ws
      .getUserData()
      .log()
      .catch(() => null);
    if (!open) return;
    if (found === null) {
      end(1012, 'come back');
      return;
    }
    log = found;
    const { after, epoch } = position;
    const isOurs = (epoch === null || epoch === found.epoch) && after <= found.lastSeq;
    next = Math.max(isOurs ? after + 1 : 1, found.firstSeq);
    const { firstSeq: first_seq, lastSeq: last_seq } = found;
    ws.send(frameOf('on_open', { epoch: found.epoch, first_seq, last_seq }));
    detach = found.attach({ wake: push });
    push();
  };

  const reject = (code: string, message: string): void => {
    // Own frames are not in the log: a reader that sends much and takes nothing must not pile them up.
    if (ws.getBufferedAmount() < readerBudgetBytes) ws.send(frameOf('on_rejected', { code, message }));
  };

  void begin();
  return {
    drain: push,
    message(data, isBinary) {
      const parsed = isBinary ? null : runtimeStreamMessage.safeParse(objectOf(data));
      if (parsed === null || !parsed.success)
        return reject('bad_message', 'Send {"type":"cancel"} or {"type":"message","content":"…"}');
      const run = deps.run(threadId);
      if (run === undefined) return reject('not_streaming', 'The run has ended');
      if (parsed.data.type === 'cancel') {
        deps
          .cancel(threadId)
          .catch(() => open && reject('not_ready', 'The cancel could not be stored; send it again'));
        return;
      }
      if (!run.message(parsed.data.content)) reject('not_streaming', 'The run no longer listens');
    },
    closed() {
      open = false;
      unwatch();
      detach();
    },
    restart: () => end(1012, 'restarting'),
  };
}

function frameOf(eventType: string, data: Record<string, unknown>): string {
  return JSON.stringify({ event_type: eventType, data });
}

function objectOf(data: ArrayBuffer): unknown {
  return secureJson.safeParse(Buffer.from(data).toString('utf8'));
}
