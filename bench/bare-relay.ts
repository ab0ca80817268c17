/**
 * What every change to the hot path is compared with: runtime socket in, uWS publish out, one topic per thread.
 * It parses, stores and guarantees nothing.
 */
import process from 'node:process';
import { WebSocket } from 'ws';
import { listenOn, loadUws } from '../src/http/uws.js';
import type { RelayOrder } from './house/messages.js';
import { hear, tell } from './house/part-side.js';

const uws = await loadUws({ headerBytes: 16 * 1024 });
const app = uws.App();
app.ws<{ topic: string }>('/viewers/:thread_id', {
  compression: 0,
  maxBackpressure: 64 * 1024 * 1024,
  idleTimeout: 0,
  upgrade(res, req, context) {
    res.upgrade(
      { topic: req.getParameter(0) ?? '' },
      req.getHeader('sec-websocket-key'),
      req.getHeader('sec-websocket-protocol'),
      req.getHeader('sec-websocket-extensions'),
      context,
    );
  },
  open: (viewer) => void viewer.subscribe(viewer.getUserData().topic),
});

function relay(runtimePort: number, topic: string): Promise<void> {
  const url = `ws://127.0.0.1:${runtimePort}/deepagents-runtime/stream/${topic}`;
  const socket = new WebSocket(url, { perMessageDeflate: false, skipUTF8Validation: true });
  socket.on('message', (data: Buffer) => void app.publish(topic, data, false));
  return new Promise((resolve, reject) => {
    socket.on('open', resolve);
    socket.on('error', reject);
  });
}

const listening = await listenOn(uws, app, '127.0.0.1', 0);
hear<RelayOrder>((order) => {
  Promise.all(order.threads.map((topic) => relay(order.runtimePort, topic))).then(
    () => tell({ type: 'opened' }),
    (error: unknown) => tell({ type: 'failed', reason: String(error) }),
  );
});
process.on('SIGTERM', () => process.exit(0));
tell({ type: 'listening', port: listening.port });
