/**
 * k6: viewers of streams that the load runtime sends at a steady pace. Viewers come while their thread is running,
 * so that each gets what it missed and then what is new; every number must come once, in order, up to `end`.
 *
 * Environment: BASE_URL, TOKEN, THREADS, VIEWERS (of each thread), FRAMES (of each thread, before state and end).
 */
import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import type { Options } from 'k6/options';
import { WebSocket } from 'k6/websockets';

const url = __ENV.BASE_URL ?? '';
const headers = { Authorization: `Bearer ${__ENV.TOKEN}`, 'Content-Type': 'application/json' };
const threads = Number(__ENV.THREADS ?? 40);
const viewers = threads * Number(__ENV.VIEWERS ?? 3);
/** The last state update and `end` come after them. */
const lastNumber = Number(__ENV.FRAMES ?? 200) + 2;

const frames = new Counter('frames');
const gaps = new Counter('gaps');
const errors = new Counter('errors');
const ended = new Counter('ended');
/** Milliseconds from the sender's stamp to the viewer, of frames sent after the viewer had come. */
const latency = new Trend('frame_latency', true);

export const options: Options = {
  scenarios: {
    viewers: { executor: 'per-vu-iterations', vus: viewers, iterations: 1, maxDuration: '3m' },
  },
  thresholds: {
    gaps: ['count==0'],
    errors: ['count==0'],
    ended: [`count==${viewers}`],
    frames: [`count==${viewers * lastNumber}`],
    checks: ['rate==1'],
  },
};

interface Frame {
  first_seq?: number;
  seq?: number;
  event_type: string;
  data: { content?: string; recovery?: string };
}

/** Paths of the streams. */
export function setup(): string[] {
  const post = (path: string, body: object) => http.post(url + path, JSON.stringify(body), { headers });
  const workflow = post('/api/workflows', { name: 'Load', files: { '/definition.json': '{}' } });
  check(workflow, { 'a workflow is made': ({ status }) => status === 201 });
  return Array.from({ length: threads }, (_, index) => {
    const started = post(`/api/workflows/${workflow.json('id')}/refinements`, {
      user_prompt: `Load ${index}`,
    });
    check(started, { 'a refinement is accepted': ({ status }) => status === 202 });
    return String(started.json('websocket_url'));
  });
}

export default function view(paths: string[]): void {
  const path = paths[exec.scenario.iterationInTest % paths.length] ?? '';
  const socket = new WebSocket(url.replace('http', 'ws') + path, null, { headers });
  let last = 0;
  let cameAt = 0;
  let over = false;
  gaps.add(0);
  errors.add(0);

  const patience = setTimeout(() => {
    errors.add(1);
    socket.close();
  }, 120_000);
  socket.onmessage = (message) => {
    const frame = JSON.parse(String(message?.data)) as Frame;
    if (frame.seq === undefined) {
      if (frame.event_type === 'on_subscribed') cameAt = Date.now();
      else gaps.add(1);
      return;
    }
    // A viewer that lags for a moment gets tokens merged; what is left out is a gap here.
    const first = frame.first_seq ?? frame.seq;
    frames.add(frame.seq - first + 1);
    if (first !== last + 1) gaps.add(1);
    last = frame.seq;
    const sentAt = Number(frame.data.content?.slice(0, 16)) / 1000;
    if (sentAt > cameAt) latency.add(Math.max(0, Date.now() - sentAt));
    if (frame.event_type !== 'end') return;
    over = true;
    ended.add(1);
  };
  socket.onerror = () => errors.add(1);
  socket.onclose = () => {
    clearTimeout(patience);
    if (!over) errors.add(1);
  };
}
