import type { InvokeRequest, WireFiles } from '@ide-orchestrator/protocol';
import type { WebSocket } from 'ws';

/** How a scripted thread speaks; each can be changed while the test runs. */
export interface ThreadManner {
  /** Frames carry `seq`, and `after` is honoured. False = an older runtime that replays everything. */
  numbered: boolean;
  /** The first frame of each connection is `on_open`. */
  opens: boolean;
  /** The socket is closed with 1000 after `end`. */
  closesAfterEnd: boolean;
}

/** A reader's place as its URL says it; null where the URL does not. */
export interface StreamPosition {
  after: number | null;
  epoch: number | null;
}

/** One run of the scripted runtime: a log that can be written while readers come and go. */
export interface ScriptedThread {
  readonly id: string;
  readonly job: InvokeRequest;
  readonly epoch: number;
  readonly lastSeq: number;
  /** Sockets that read at the moment. */
  readonly readers: number;
  /** What readers sent, parsed where it was JSON. */
  readonly messages: readonly unknown[];
  readonly manner: ThreadManner;
  /** Appends a frame and sends it to all readers; returns its number. */
  push(eventType: string, data?: unknown): number;
  /** `on_state_update` with these texts as files (`null` = deleted). */
  pushFiles(files: Record<string, string | null>): number;
  /** Sends text as it is to the present readers; it is in no log and has no number. */
  sendRaw(text: string | Buffer): void;
  end(): void;
  /** `error`, then `end`. */
  fail(code: string, message: string, retryable?: boolean): void;
  /** Destroys the readers' sockets without a close frame. */
  cut(): void;
  closeReaders(code: number, reason?: string): void;
  /** As after a restart of the runtime: sockets are cut, the log begins anew in the next epoch. */
  restart(): void;
  state(): Record<string, unknown>;
  attach(socket: WebSocket, position: StreamPosition): void;
}

/** Texts in the shape in which the runtime sends files. */
export function wireFilesOf(files: Record<string, string | null>): WireFiles {
  return Object.fromEntries(
    Object.entries(files).map(([path, text]) => [path, text === null ? null : { content: text.split('\n') }]),
  );
}

export function createScriptedThread(job: InvokeRequest, id: string, manner: ThreadManner): ScriptedThread {
  const sockets = new Set<WebSocket>();
  const messages: unknown[] = [];
  let log: string[] = [];
  let epoch = 1;
  let status: 'running' | 'completed' | 'failed' = 'running';
  let files: unknown = null;
  let error: unknown = null;

  const deliver = (text: string | Buffer): void => {
    for (const socket of sockets) socket.send(text, { binary: false });
  };
  const finishReaders = (): void => {
    if (status === 'running' || !manner.closesAfterEnd) return;
    for (const socket of sockets) socket.close(1000);
  };
  const thread: ScriptedThread = {
    id,
    job,
    manner,
    messages,
    get epoch() {
      return epoch;
    },
    get lastSeq() {
      return log.length;
    },
    get readers() {
      return sockets.size;
    },
    push(eventType, data = {}) {
      const seq = log.length + 1;
      const frame = { event_type: eventType, data };
      if (eventType === 'on_state_update' && isObject(data) && 'files' in data) files = data.files;
      if (eventType === 'error') error = data;
      const text = JSON.stringify(manner.numbered ? { seq, ...frame } : frame);
      log.push(text);
      // The state is true before `end` leaves, as in the real runtime.
      if (eventType === 'end') status = error === null ? 'completed' : 'failed';
      deliver(text);
      finishReaders();
      return seq;
    },
    pushFiles: (texts) => thread.push('on_state_update', { files: wireFilesOf(texts) }),
    sendRaw: deliver,
    end() {
      thread.push('end');
    },
    fail(code, message, retryable) {
      thread.push('error', { code, message, ...(retryable === undefined ? {} : { retryable }) });
      thread.end();
    },
    cut() {
      for (const socket of sockets) socket.terminate();
    },
    closeReaders(code, reason) {
      for (const socket of sockets) socket.close(code, reason);
    },
    restart() {
      epoch++;
      log = [];
      thread.cut();
    },
    state: () => ({
      thread_id: id,
      status,
      result: null,
      generated_files: files,
      ...(error === null ? {} : { error }),
    }),
    attach(socket, position) {
      socket.on('message', (data) => messages.push(parsed(String(data))));
      socket.once('close', () => sockets.delete(socket));
      const own = position.epoch === null || position.epoch === epoch;
      const resumes = manner.numbered && own && position.after !== null && position.after <= log.length;
      if (manner.opens) {
        const data = { epoch, first_seq: Math.min(1, log.length), last_seq: log.length };
        socket.send(JSON.stringify({ event_type: 'on_open', data }));
      }
      for (const text of log.slice(resumes ? (position.after ?? 0) : 0)) socket.send(text);
      sockets.add(socket);
      finishReaders();
    },
  };
  return thread;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
