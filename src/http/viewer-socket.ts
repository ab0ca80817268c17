import type {
  HttpRequest,
  HttpResponse,
  us_socket_context_t,
  WebSocket,
  WebSocketBehavior,
} from 'uWebSockets.js';
import { closeCodes } from '@ide-orchestrator/protocol';
import type { Attachment, ThreadDirectory } from '../actors/thread-directory.js';
import { AppError, toError } from '../errors.js';
import type { Viewer } from '../streams/viewer.js';
import type { Metrics } from '../telemetry/metrics.js';
import { createAllowance } from './allowance.js';
import { closeCodeOf, hear, type MessageDeps } from './viewer-messages.js';
import type { Admission } from './viewer-upgrade.js';

export interface ViewerSocketDeps extends MessageDeps {
  directory: Pick<ThreadDirectory, 'notice' | 'attach'>;
  upgrade: (res: HttpResponse, req: HttpRequest, context: us_socket_context_t) => void;
  metrics: Pick<
    Metrics,
    'websocketConnections' | 'websocketClosesTotal' | 'rateLimitedTotal' | 'websocketSlowClosesTotal'
  >;
  now: () => number;
  /** Bytes that may wait for one viewer. */
  budgetBytes: number;
  /** The largest frame that a run may send. */
  frameBytes: number;
  messagesPerSecond: number;
}

/**
 * uWS drops TCP without a word above this; it leaves room to say 1009 for what is over our own limit. Not more room: uWS
 * keeps a message until it is whole and shows nothing of it before, so this is what each socket can make us hold
 * (measured: one user's 50 sockets 49 MiB, and 816 MiB if this were 16 MiB).
 */
const maxPayloadLength = 1024 * 1024;
/** Seconds. A ping goes out 8 s before; a peer that does not answer is closed within 33 s, timers being coarse by 4 s. */
const idleTimeout = 28;
/** Messages that wait until the thread is attached. */
const maxWaiting = 32;
const longestTimerMs = 2 ** 31 - 1;
const knownCodes = new Set([1000, 1001, 1005, 1006, ...Object.values(closeCodes).map(({ close }) => close)]);

/** A socket's own part, made in `open`. */
interface Live {
  viewer: Viewer;
  attachment: Attachment | null;
  waiting: string[];
  heard: Promise<void>;
  allow: () => boolean;
  timer: NodeJS.Timeout | null;
  dropped: boolean;
  closed: boolean;
}

export interface ViewerSockets {
  behavior: WebSocketBehavior<Admission>;
  count(): number;
  /** Closes every viewer, in batches of one turn each so that the loop goes on. */
  closeAll(code: number, reason: string): void;
}

/** The viewers' side of a thread: lets them in, serves them from the thread's actor, hears them, and ends them in time. */
export function createViewerSockets(deps: ViewerSocketDeps): ViewerSockets {
  const lives = new Map<WebSocket<Admission>, Live>();

  const flooded = (live: Live) => {
    if (live.allow()) return false;
    deps.metrics.rateLimitedTotal.inc({ scope: 'messages' });
    live.viewer.close(4429, `at most ${deps.messagesPerSecond} messages a second`);
    return true;
  };
  const endAt = (live: Live, expiresAt: number) => {
    if (live.timer !== null) clearTimeout(live.timer);
    const left = expiresAt - deps.now();
    live.timer = setTimeout(
      () =>
        left > longestTimerMs ? endAt(live, expiresAt) : live.viewer.close(4401, 'the token has expired'),
      Math.min(Math.max(left, 0), longestTimerMs),
    );
  };
  /** One after the other, so that answers come in the order of the questions. */
  const listen = (admission: Admission, live: Live, attachment: Attachment, text: string) => {
    const session = { admission, viewer: live.viewer, attachment, prolong: (at: number) => endAt(live, at) };
    live.heard = live.heard.then(async () => {
      if (live.closed) return;
      await hear(deps, session, text);
      // Beyond the most that the thread itself may put there, its own answers make it wait.
      const waiting = live.closed ? 0 : live.viewer.bufferedBytes();
      if (waiting > deps.budgetBytes + deps.frameBytes) live.viewer.close(4408, '');
    });
  };

  const open = (ws: WebSocket<Admission>) => {
    const admission = ws.getUserData();
    const live: Live = {
      viewer: viewerOf(ws, admission, () => live.closed),
      attachment: null,
      waiting: [],
      heard: Promise.resolve(),
      allow: createAllowance({ perSecond: deps.messagesPerSecond, now: deps.now }),
      timer: null,
      dropped: false,
      closed: false,
    };
    lives.set(ws, live);
    deps.metrics.websocketConnections.set(lives.size);
    endAt(live, admission.expiresAt);
    deps.directory.attach(admission.threadId, live.viewer, admission.position).then(
      (attachment) => {
        if (live.closed) {
          attachment.detach();
          return;
        }
        live.attachment = attachment;
        for (const text of live.waiting.splice(0)) listen(admission, live, attachment, text);
      },
      (thrown: unknown) => {
        const error = toError(thrown);
        deps.log.warn({ err: error, thread_id: admission.threadId }, 'a viewer could not be attached');
        const gone = error instanceof AppError && error.code === 'not_found';
        live.viewer.close(gone ? 4404 : 1013, gone ? 'deleted' : 'the thread cannot be read, come back');
      },
    );
  };

  return {
    count: () => lives.size,
    closeAll(code, reason) {
      for (const live of [...lives.values()]) live.viewer.close(code, reason);
    },
    behavior: {
      compression: 0,
      maxPayloadLength,
      // Above any frame plus all that may wait: uWS would drop what is beyond without a word to anybody.
      maxBackpressure: deps.frameBytes + deps.budgetBytes + maxPayloadLength,
      closeOnBackpressureLimit: 0,
      idleTimeout,
      sendPingsAutomatically: true,
      upgrade: deps.upgrade,
      open,
      message(ws, message, isBinary) {
        const live = lives.get(ws);
        if (live === undefined || live.closed || flooded(live)) return;
        const fault = closeCodeOf(message, isBinary);
        if (fault !== null) {
          live.viewer.close(fault.code, fault.reason);
          return;
        }
        const text = Buffer.from(message).toString('utf8');
        if (live.attachment !== null) listen(ws.getUserData(), live, live.attachment, text);
        // `on_subscribed` is the first frame of every socket: answers wait for it.
        else if (live.waiting.length < maxWaiting) live.waiting.push(text);
        else live.viewer.close(4429, 'too many messages before the first frame');
      },
      ping(ws) {
        const live = lives.get(ws);
        if (live !== undefined && !live.closed) flooded(live);
      },
      // Ours are answered once in 20 s; what nobody asked for costs its sender what a message costs.
      pong(ws) {
        const live = lives.get(ws);
        if (live !== undefined && !live.closed) flooded(live);
      },
      drain(ws) {
        lives.get(ws)?.attachment?.drained();
      },
      dropped(ws) {
        const live = lives.get(ws);
        if (live === undefined || live.closed || live.dropped) return;
        live.dropped = true;
        deps.metrics.websocketSlowClosesTotal.inc();
        // uWS is inside the very send that it tells of, and goes on with a socket that must still be there.
        setImmediate(() => live.viewer.close(4408, ''));
      },
      close(ws, code) {
        const live = lives.get(ws);
        if (live === undefined) return;
        const { release } = ws.getUserData();
        live.closed = true;
        lives.delete(ws);
        if (live.timer !== null) clearTimeout(live.timer);
        live.attachment?.detach();
        release();
        deps.metrics.websocketConnections.set(lives.size);
        deps.metrics.websocketClosesTotal.inc({ code: knownCodes.has(code) ? String(code) : 'other' });
      },
    },
  };
}

/** The port that the streams send through. uWS throws when a closed socket is touched, hence the guard on every call. */
function viewerOf(ws: WebSocket<Admission>, admission: Admission, isClosed: () => boolean): Viewer {
  let ended = false;
  const gone = () => ended || isClosed();
  return {
    id: admission.viewerId,
    userId: admission.userId,
    access: admission.access,
    accessVersion: admission.accessVersion,
    traceId: admission.traceId,
    send: (message) => (gone() ? 2 : ws.send(message, false)),
    subscribe: (topic) => {
      if (!gone()) ws.subscribe(topic);
    },
    unsubscribe: (topic) => {
      if (!gone()) ws.unsubscribe(topic);
    },
    isClosed: gone,
    bufferedBytes: () => (gone() ? 0 : ws.getBufferedAmount()),
    cork: (sends) => {
      if (!gone()) ws.cork(sends);
    },
    close: (code, reason) => {
      if (gone()) return;
      ended = true;
      // A reason has 123 bytes at most (RFC 6455, 5.5).
      ws.end(code, reason.slice(0, 123));
    },
  };
}
