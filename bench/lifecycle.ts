/**
 * k6: whole refinements at once through the real runtime, each with its viewer: prompt, ticket, stream to its end,
 * the stored proposal, approval. On `end` the proposal must be found completed at once.
 *
 * Environment: BASE_URL, TOKEN, USERS (side by side), ROUNDS (refinements of each, one after the other).
 */
import { check } from 'k6';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import type { Options } from 'k6/options';
import { WebSocket } from 'k6/websockets';

const url = __ENV.BASE_URL ?? '';
const headers = { Authorization: `Bearer ${__ENV.TOKEN}`, 'Content-Type': 'application/json' };
const users = Number(__ENV.USERS ?? 10);
const rounds = Number(__ENV.ROUNDS ?? 2);

const gaps = new Counter('gaps');
const errors = new Counter('errors');
const approved = new Counter('approved');
const firstToken = new Trend('first_token', true);
const wholeRun = new Trend('whole_refinement', true);

export const options: Options = {
  scenarios: { users: { executor: 'per-vu-iterations', vus: users, iterations: rounds, maxDuration: '5m' } },
  thresholds: {
    gaps: ['count==0'],
    errors: ['count==0'],
    approved: [`count==${users * rounds}`],
    checks: ['rate==1'],
  },
};

const post = (path: string, body: object) => http.post(url + path, JSON.stringify(body), { headers });

export default function refine(): void {
  gaps.add(0);
  errors.add(0);
  const workflow = post('/api/workflows', { name: 'Life', files: { '/definition.json': '{}\n' } });
  check(workflow, { 'a workflow is made': ({ status }) => status === 201 });
  const from = Date.now();
  const started = post(`/api/workflows/${workflow.json('id')}/refinements`, {
    user_prompt: 'Add web search capability to the agent',
  });
  check(started, { 'a refinement is accepted': ({ status }) => status === 202 });
  const ticket = post('/api/ws/tickets', { thread_id: started.json('thread_id') });
  check(ticket, { 'a ticket is made': ({ status }) => status === 201 });
  const path = `${started.json('websocket_url')}?ticket=${ticket.json('ticket')}`;
  watch(url.replace('http', 'ws') + path, from, String(started.json('proposal_id')));
}

function watch(address: string, from: number, proposalId: string): void {
  const socket = new WebSocket(address, null);
  let last = 0;
  let token = false;
  let over = false;
  const patience = setTimeout(() => {
    errors.add(1);
    socket.close();
  }, 120_000);
  socket.onmessage = (message) => {
    const frame = JSON.parse(String(message?.data)) as {
      first_seq?: number;
      seq?: number;
      event_type: string;
    };
    if (frame.seq === undefined) {
      if (frame.event_type !== 'on_subscribed') gaps.add(1);
      return;
    }
    if ((frame.first_seq ?? frame.seq) !== last + 1) gaps.add(1);
    last = frame.seq;
    if (frame.event_type === 'error') errors.add(1);
    if (frame.event_type === 'on_llm_stream' && !token) {
      token = true;
      firstToken.add(Date.now() - from);
    }
    if (frame.event_type !== 'end') return;
    over = true;
    wholeRun.add(Date.now() - from);
    decide(proposalId);
  };
  socket.onerror = () => errors.add(1);
  socket.onclose = () => {
    clearTimeout(patience);
    if (!over) errors.add(1);
  };
}

/** The `end` was seen: what it says must be in the database by now. */
function decide(proposalId: string): void {
  const proposal = http.get(`${url}/api/proposals/${proposalId}`, { headers });
  check(proposal, {
    'on end the proposal is completed': (found) => found.json('status') === 'completed',
    'it has files': (found) => Object.keys(Object(found.json('generated_files'))).length > 0,
  });
  const decision = post(`/api/proposals/${proposalId}/approve`, {});
  if (check(decision, { 'it is approved': (made) => made.json('resolution') === 'approved' }))
    approved.add(1);
}
