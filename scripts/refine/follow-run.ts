import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import { onReset, onRetry, onSkipped, onSubscribed } from '@ide-orchestrator/protocol';
import WebSocket from 'ws';

export interface StreamFrame {
  event_type: string;
  seq?: number;
  data: Record<string, unknown>;
}

export interface FollowDeps {
  /** Origin of the server, http(s). */
  url: string;
  /** Path of the stream, as the refinement's answer names it. */
  path: string;
  token: string;
  onFrame: (frame: StreamFrame) => void;
  /** The connection was lost and will be tried again. */
  onLost?: (reason: string) => void;
  /** Waiting time before the first new try, ms; doubled up to 5 s, new after each frame. */
  backoffMs?: number;
  /** Without any connection for so long the run is given up, ms. */
  giveUpAfterMs?: number;
}

/** Codes and statuses after which another try would be answered the same. */
const finalCloses: Record<number, string> = {
  4400: 'the server did not understand this client',
  4401: 'the token has expired',
  4403: 'access was withdrawn',
  4404: 'the refinement was deleted',
};
const finalStatuses: Record<number, string> = {
  400: 'the server did not accept the position',
  401: 'the token is not valid',
  403: 'access is not allowed',
  404: 'there is no such refinement',
};

interface Position {
  epoch: string | undefined;
  seq: number;
}

type Outcome =
  | { kind: 'ended' }
  | { kind: 'final'; reason: string }
  | { kind: 'lost'; reason: string; afterMs: number };

const silenceMs = 30_000;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const decode = (text: string): StreamFrame | undefined => {
  try {
    const value: unknown = JSON.parse(text);
    if (!isObject(value) || typeof value.event_type !== 'string') return undefined;
    const frame: StreamFrame = { event_type: value.event_type, data: isObject(value.data) ? value.data : {} };
    if (typeof value.seq === 'number') frame.seq = value.seq;
    return frame;
  } catch {
    return undefined;
  }
};

/** Moves the position by one frame; false where the frame was seen before and is not to be shown again. */
const advance = (position: Position, frame: StreamFrame): boolean => {
  const begin = (epoch: string): void => {
    if (epoch !== position.epoch) position.seq = 0;
    position.epoch = epoch;
  };
  const subscribed = onSubscribed.safeParse(frame);
  if (subscribed.success) {
    begin(subscribed.data.data.epoch);
    if (subscribed.data.data.recovery === 'reset') position.seq = 0;
    return true;
  }
  const anew = onReset.safeParse(frame);
  const retry = onRetry.safeParse(frame);
  if (anew.success || retry.success) {
    position.seq = 0;
    begin(anew.success ? anew.data.data.epoch : (retry.data?.data.epoch ?? ''));
    return true;
  }
  const skipped = onSkipped.safeParse(frame);
  if (skipped.success) position.seq = Math.max(position.seq, skipped.data.data.last_seq);
  if (frame.seq === undefined) return true;
  if (frame.seq <= position.seq) return false;
  position.seq = frame.seq;
  return true;
};

/** One connection, until it closes. Resolves in every case. */
const connectOnce = (deps: FollowDeps, position: Position, onProgress: () => void): Promise<Outcome> =>
  new Promise((resolve) => {
    const address = new URL(deps.path, deps.url);
    address.protocol = address.protocol.replace('http', 'ws');
    if (position.epoch !== undefined) {
      address.searchParams.set('after', String(position.seq));
      address.searchParams.set('epoch', position.epoch);
    }
    const socket = new WebSocket(address, {
      headers: { authorization: `Bearer ${deps.token}` },
      handshakeTimeout: 10_000,
      maxPayload: 64 * 1024 * 1024,
      perMessageDeflate: false,
    });
    let ended = false;
    let refusal: Outcome | undefined;
    let reason = 'connection closed';
    let heardAt = performance.now();
    const heard = (): void => {
      heardAt = performance.now();
    };
    // A peer that vanished closes nothing: ask, and take silence for an answer.
    const heartbeat = setInterval(() => {
      if (performance.now() - heardAt > silenceMs) socket.terminate();
      else if (socket.readyState === WebSocket.OPEN) socket.ping();
    }, silenceMs / 3);
    socket.on('pong', heard);
    socket.on('unexpected-response', (_request, response: IncomingMessage) => {
      const status = response.statusCode ?? 0;
      const final = finalStatuses[status];
      const afterMs = Number(response.headers['retry-after'] ?? 0) * 1_000 || 0;
      refusal =
        final === undefined
          ? { kind: 'lost', reason: `the server answered ${status}`, afterMs }
          : { kind: 'final', reason: final };
      response.resume();
      socket.terminate();
    });
    socket.on('error', (error) => {
      reason = error.message;
    });
    socket.on('message', (data) => {
      heard();
      const frame = decode(String(data));
      if (frame === undefined || !advance(position, frame)) return;
      onProgress();
      deps.onFrame(frame);
      if (frame.event_type !== 'end') return;
      ended = true;
      // The server closes too; one that does not must not keep the person waiting.
      socket.close(1000);
    });
    socket.on('close', (code) => {
      clearInterval(heartbeat);
      const final = finalCloses[code];
      if (ended) resolve({ kind: 'ended' });
      else if (refusal !== undefined) resolve(refusal);
      else if (final !== undefined) resolve({ kind: 'final', reason: final });
      else resolve({ kind: 'lost', reason: code === 1006 ? reason : `closed with ${code}`, afterMs: 0 });
    });
  });

/**
 * Follows a run until its `end`. A lost connection is opened again at the last position, with back-off and jitter;
 * nothing is shown twice. Rejects when the server refuses for good, or cannot be reached for `giveUpAfterMs`.
 */
export const followRun = async (deps: FollowDeps): Promise<void> => {
  const baseMs = deps.backoffMs ?? 200;
  const giveUpAfterMs = deps.giveUpAfterMs ?? 300_000;
  const position: Position = { epoch: undefined, seq: 0 };
  let delayMs = baseMs;
  let heardAt = performance.now();
  for (;;) {
    const outcome = await connectOnce(deps, position, () => {
      delayMs = baseMs;
      heardAt = performance.now();
    });
    if (outcome.kind === 'ended') return;
    if (outcome.kind === 'final') throw new Error(`The stream was refused: ${outcome.reason}`);
    if (performance.now() - heardAt > giveUpAfterMs) {
      throw new Error(`The stream could not be opened again (${outcome.reason})`);
    }
    deps.onLost?.(outcome.reason);
    await wait(Math.max(outcome.afterMs, delayMs * (0.5 + Math.random() / 2)));
    delayMs = Math.min(delayMs * 2, 5_000);
  }
};
