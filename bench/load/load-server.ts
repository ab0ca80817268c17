import type { HttpResponse } from 'uWebSockets.js';
import { invokeRequest } from '@ide-orchestrator/protocol';
import { listenOn, loadUws } from '../../src/http/uws.js';
import { loadFiles } from './frame-maker.js';
import { type AutoPace, createLoadThreads, type LoadThreads, type StreamData } from './load-threads.js';

export interface LoadServer {
  port: number;
  threads: LoadThreads;
  stop(): void;
}

const base = '/deepagents-runtime';
const largestBody = 64 * 1024 * 1024;

function answer(res: HttpResponse, status: string, body?: unknown): void {
  res.cork(() => {
    res.writeStatus(status).writeHeader('Content-Type', 'application/json');
    if (body === undefined) res.endWithoutBody(0);
    else res.end(JSON.stringify(body));
  });
}
const unknownThread = { code: 'thread_not_found', message: 'There is no such run.' };

/** Speaks the runtime's API (protocol.md §1) on 127.0.0.1, with runs that consist of frames alone. */
export async function createLoadServer(options: { auto: AutoPace | null }): Promise<LoadServer> {
  const uws = await loadUws({ headerBytes: 16 * 1024 });
  const threads = createLoadThreads(options.auto);
  const app = uws.App();

  app.post(`${base}/invoke`, (res) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let aborted = false;
    res.onAborted(() => {
      aborted = true;
    });
    res.onData((chunk, last) => {
      size += chunk.byteLength;
      if (size > largestBody) return void res.close();
      chunks.push(Buffer.from(new Uint8Array(chunk)));
      if (!last || aborted) return;
      const job = jobOf(Buffer.concat(chunks));
      if (job === null)
        return answer(res, '422 Unprocessable Entity', { code: 'validation_failed', message: 'no job' });
      answer(res, '200 OK', { thread_id: threads.begin(job).id, status: 'started' });
    });
  });
  app.get(`${base}/state/:thread_id`, (res, req) => {
    const thread = threads.get(req.getParameter(0) ?? '');
    if (thread === undefined) return answer(res, '404 Not Found', unknownThread);
    const ended = thread.released > thread.total;
    const status = !ended ? 'running' : thread.cancelled ? 'failed' : 'completed';
    const generated_files = status === 'completed' ? loadFiles : null;
    answer(res, '200 OK', { thread_id: thread.id, status, result: null, generated_files });
  });
  app.post(`${base}/cancel/:thread_id`, (res, req) => {
    const thread = threads.get(req.getParameter(0) ?? '');
    if (thread === undefined) return answer(res, '404 Not Found', unknownThread);
    threads.cancel(thread);
    answer(res, '202 Accepted', {});
  });
  app.del(`${base}/cleanup/:thread_id`, (res, req) => {
    if (threads.forget(req.getParameter(0) ?? '')) answer(res, '204 No Content');
    else answer(res, '404 Not Found', unknownThread);
  });
  app.get('/ready', (res) => answer(res, '200 OK', {}));
  app.ws<StreamData>(`${base}/stream/:thread_id`, {
    compression: 0,
    maxBackpressure: largestBody,
    idleTimeout: 0,
    upgrade(res, req, context) {
      const threadId = req.getParameter(0) ?? '';
      const after = Number(req.getQuery('after') ?? 0);
      if (threads.get(threadId) === undefined) return answer(res, '404 Not Found', unknownThread);
      res.upgrade(
        { threadId, next: Number.isSafeInteger(after) ? after + 1 : 1 },
        req.getHeader('sec-websocket-key'),
        req.getHeader('sec-websocket-protocol'),
        req.getHeader('sec-websocket-extensions'),
        context,
      );
    },
    open(stream) {
      const thread = threads.get(stream.getUserData().threadId);
      if (thread === undefined) stream.end(1011);
      else threads.opened(thread, stream);
    },
    drain: (stream) => threads.pump(stream),
    close: (stream) => threads.closed(threads.get(stream.getUserData().threadId), stream),
  });
  app.any('/*', (res) => answer(res, '404 Not Found', { code: 'not_found', message: 'nothing here' }));

  const listening = await listenOn(uws, app, '127.0.0.1', 0);
  return {
    port: listening.port,
    threads,
    stop() {
      threads.stop();
      app.close();
    },
  };
}

function jobOf(body: Buffer): string | null {
  try {
    const job = invokeRequest.safeParse(JSON.parse(body.toString('utf8')));
    return job.success ? job.data.job_id : null;
  } catch {
    return null;
  }
}
