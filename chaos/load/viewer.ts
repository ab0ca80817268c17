import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import WebSocket from 'ws';
import { limitTime } from '../../src/time-limit.js';
import type { EndSeen, Entry, ViewerLog } from '../check/viewer-log.js';
import type { House } from '../house/house.js';
import { replicas } from '../plan.js';
import type { Random } from '../random.js';
import type { Api } from './api.js';

export interface ViewerDeps {
  house: House;
  api: Api;
  random: Random;
  onEntry: (entry: Entry) => void;
  onClose: (code: number) => void;
  /** A close or a refusal that a viewer like this never deserves. */
  onFault: (what: string) => void;
}

export interface ViewerOptions {
  name: string;
  user: string;
  threadId: string;
  /** Comes back until the end; otherwise it goes for good now and then. */
  stays: boolean;
  /** Stops reading for a while, again and again. */
  slow: boolean;
  signal: AbortSignal;
}

const pingMs = 5_000;
const silenceMs = 15_000;
const deserved = new Set([1000, 1001, 1005, 1006, 1012, 1013, 4408]);
const refused = new Set([400, 401, 403, 404]);

interface Frame {
  event_type: string;
  seq?: number;
  first_seq?: number;
  data: Record<string, unknown>;
}

interface Position {
  epoch: string;
  seq: number;
}

/**
 * Watches a thread as a good front end does: keeps its position, comes back with it to any replica, and writes down
 * everything that it sees. Resolves with the log, at the end of the thread or when it leaves.
 */
export async function watchThread(deps: ViewerDeps, options: ViewerOptions): Promise<ViewerLog> {
  const { random } = deps;
  const log: ViewerLog = {
    viewer: options.name,
    threadId: options.threadId,
    stayed: options.stays,
    entries: [],
    ends: [],
  };
  let position: Position | null = null;
  for (let failures = 0; !options.signal.aborted && log.ends.length === 0; ) {
    const limit = limitTime(options.signal, options.stays ? 600_000 : random.whole(300, 8_000));
    const leaving = limit.signal;
    const seen: { position: Position | null; progressed: boolean; afterMs: number } = await connectOnce(
      deps,
      options,
      log,
      position,
      leaving,
    );
    limit.end();
    position = seen.position;
    failures = seen.progressed ? 0 : failures + 1;
    if (!options.stays && leaving.aborted && random.chance(0.5)) break;
    const pause = Math.min(150 * 2 ** Math.min(failures, 5), 3_000) * random.between(0.5, 1);
    await wait(Math.max(pause, Math.min(seen.afterMs, 3_000)), undefined, { signal: options.signal }).catch(
      () => undefined,
    );
  }
  if (options.signal.aborted && log.ends.length === 0 && !options.stays) log.stayed = false;
  return log;
}

async function connectOnce(
  deps: ViewerDeps,
  options: ViewerOptions,
  log: ViewerLog,
  from: Position | null,
  leaving: AbortSignal,
): Promise<{ position: Position | null; progressed: boolean; afterMs: number }> {
  const replica = deps.house.orchestrators.get(deps.random.pick(replicas));
  const address = new URL(`/api/ws/refinements/${options.threadId}`, replica?.url);
  address.protocol = 'ws:';
  if (from !== null) {
    address.searchParams.set('after', String(from.seq));
    address.searchParams.set('epoch', from.epoch);
  }
  const socket = new WebSocket(address, {
    headers: await deps.api.headers(options.user),
    handshakeTimeout: 10_000,
    maxPayload: 64 * 1024 * 1024,
    perMessageDeflate: false,
  });
  const state = { position: from === null ? null : { ...from }, progressed: false, afterMs: 0 };
  let heardAt = performance.now();
  const heartbeat = setInterval(() => {
    if (socket.isPaused) heardAt = performance.now();
    else if (performance.now() - heardAt > silenceMs) socket.terminate();
    else if (socket.readyState === WebSocket.OPEN) socket.ping();
  }, pingMs);
  const sleepiness = options.slow ? setInterval(() => nap(socket, deps.random), 2_500) : null;
  const leave = () => (socket.readyState === WebSocket.OPEN ? socket.close(1000) : socket.terminate());
  leaving.addEventListener('abort', leave, { once: true });
  socket.on('pong', () => {
    heardAt = performance.now();
  });
  socket.on('error', () => undefined);
  socket.on('unexpected-response', (_request, response: IncomingMessage) => {
    const status = response.statusCode ?? 0;
    if (refused.has(status)) deps.onFault(`viewer ${options.name} was refused with ${status}`);
    state.afterMs = Number(response.headers['retry-after'] ?? 0) * 1_000 || 0;
    response.resume();
    socket.terminate();
  });
  socket.on('message', (data: Buffer) => {
    heardAt = performance.now();
    state.progressed = true;
    const seen = entryOf(data, from);
    if (seen === null) return;
    const { entry, end } = seen;
    log.entries.push(entry);
    state.position = moved(state.position, entry);
    deps.onEntry(entry);
    if (end !== null) {
      log.ends.push({ ...end, epoch: state.position?.epoch ?? '' });
      // The server closes by itself; what it still says before that is written down as well.
      setTimeout(() => socket.close(1000), 2_000).unref();
    }
  });
  const code = await new Promise<number>((resolve) => socket.on('close', resolve));
  clearInterval(heartbeat);
  if (sleepiness !== null) clearInterval(sleepiness);
  leaving.removeEventListener('abort', leave);
  deps.onClose(code);
  if (!deserved.has(code)) deps.onFault(`viewer ${options.name} was closed with ${code}`);
  return state;
}

function nap(socket: WebSocket, random: Random): void {
  if (socket.readyState !== WebSocket.OPEN || socket.isPaused) return;
  socket.pause();
  setTimeout(() => socket.resume(), random.whole(500, 15_000)).unref();
}

/** Where a viewer stands after what it has just heard. */
function moved(position: Position | null, entry: Entry): Position | null {
  switch (entry.kind) {
    case 'subscribed':
      return entry.asked !== null && entry.recovery !== 'reset'
        ? entry.asked
        : { epoch: entry.epoch, seq: 0 };
    case 'begin':
      return { epoch: entry.epoch, seq: 0 };
    case 'skipped':
      return position === null ? null : { ...position, seq: Math.max(position.seq, entry.last) };
    case 'frame':
      return position === null ? null : { ...position, seq: Math.max(position.seq, entry.seq) };
  }
}

/** Null for what has no number and moves nothing. */
function entryOf(
  bytes: Buffer,
  asked: Position | null,
): { entry: Entry; end: Omit<EndSeen, 'epoch'> | null } | null {
  const { event_type: type, seq, first_seq: first, data } = JSON.parse(bytes.toString('utf8')) as Frame;
  const epoch = String(data?.epoch);
  if (type === 'on_subscribed') {
    const recovery = data.recovery as 'exact' | 'compacted' | 'reset';
    return { entry: { kind: 'subscribed', asked, epoch, recovery }, end: null };
  }
  if (type === 'on_reset' || type === 'on_retry') return { entry: { kind: 'begin', epoch }, end: null };
  if (type === 'on_skipped') {
    return {
      entry: { kind: 'skipped', first: Number(data.first_seq), last: Number(data.last_seq) },
      end: null,
    };
  }
  if (seq === undefined) return null;
  const print = createHash('sha1').update(bytes).digest('base64');
  const text = type === 'on_llm_stream' && typeof data.content === 'string' ? data.content : null;
  const entry: Entry = { kind: 'frame', first: first ?? seq, seq, type, print, text };
  if (type !== 'end') return { entry, end: null };
  return {
    entry,
    end: { at: Date.now(), status: String(data.status), files: (data.files ?? {}) as EndSeen['files'] },
  };
}
