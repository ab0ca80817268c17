/** Stands in for the orchestrator in front of the terminal client: a script of frames, with drops where it says so. */
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';

export type Step = Record<string, unknown> | 'drop' | { close: number } | { refuse: number };

interface Seen {
  method: string;
  path: string;
  key: string | undefined;
  body: unknown;
}

const time = '2026-01-01T00:00:00.000Z';
const sha256 = 'a'.repeat(64);

const readBody = async (request: http.IncomingMessage): Promise<unknown> => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString('utf8');
  return text === '' ? undefined : JSON.parse(text);
};

/**
 * `connections` is what each connection of the viewer gets, in turn. `failed` makes the proposal a failed one,
 * the first request to a path that ends with `dropOnce` is cut off without an answer.
 */
export const startScriptedOrchestrator = async (script: {
  connections: Step[][];
  failed?: { code: string; message: string };
  hasWorkflow?: boolean;
  conflict?: boolean;
  dropOnce?: string;
}) => {
  const ids = { workflow: randomUUID(), proposal: randomUUID(), thread: randomUUID(), draft: randomUUID() };
  const seen: Seen[] = [];
  const positions: string[] = [];
  let { dropOnce } = script;
  const workflow = {
    id: ids.workflow,
    name: 'Greeting workflow',
    description: null,
    production_version: null,
    created_at: time,
    updated_at: time,
  };
  const proposal = {
    id: ids.proposal,
    workflow_id: ids.workflow,
    draft_id: ids.draft,
    thread_id: ids.thread,
    status: script.failed ? 'failed' : 'completed',
    phase: null,
    resolution: null,
    user_prompt: 'x',
    context_file_path: null,
    context_selection: null,
    base_revision: 1,
    generated_files: null,
    warnings: [],
    error: script.failed ? { ...script.failed, retryable: false } : null,
    attempt: 1,
    created_at: time,
    completed_at: time,
    resolved_at: null,
    resolved_by_user_id: null,
  };
  const problem = (status: number, code: string, detail: string, more = {}) =>
    [
      status,
      { type: 'about:blank', title: code, status, code, detail, instance: '/', request_id: 'r', ...more },
    ] as const;
  const hunk = { old_start: 1, old_lines: 1, new_start: 1, new_lines: 1, lines: ['-None.', '+Web search.'] };
  const files = [
    { path: '/THE_CAST/GreetingAgent.md', status: script.conflict ? 'conflict' : 'modified', hunks: [hunk] },
    { path: '/definition.json', status: 'unchanged', hunks: [] },
  ];
  const decided = { proposal_id: ids.proposal, status: 'resolved' };

  const answer = (method: string, path: string): readonly [number, unknown] => {
    const route = `${method} ${path.replace(/\?.*/, '').replace(/[0-9a-f-]{36}/, '{id}')}`;
    switch (route) {
      case 'GET /api/workflows':
        return [200, { items: script.hasWorkflow ? [workflow] : [], next_cursor: null }];
      case 'GET /api/workflows/{id}':
        return path.includes(ids.workflow)
          ? [200, workflow]
          : problem(404, 'workflow_not_found', 'There is none');
      case 'POST /api/workflows':
        return [201, workflow];
      case 'GET /api/workflows/{id}/draft': {
        if (script.hasWorkflow) return problem(404, 'draft_not_found', 'There is no draft');
        const file = { content: 'None.', type: 'text/markdown', sha256, revision: 1, updated_at: time };
        return [200, { id: ids.draft, revision: 1, files: { '/THE_CAST/GreetingAgent.md': file } }];
      }
      case 'POST /api/workflows/{id}/refinements': {
        const started = {
          proposal_id: ids.proposal,
          thread_id: ids.thread,
          status: 'processing',
          created_at: time,
        };
        return [202, { ...started, websocket_url: `/api/ws/refinements/${ids.thread}` }];
      }
      case 'GET /api/proposals/{id}':
        return [200, proposal];
      case 'GET /api/proposals/{id}/diff':
        return [200, { files }];
      case 'POST /api/proposals/{id}/approve':
        if (script.conflict)
          return problem(409, 'conflict', 'Files changed on both sides', { conflicts: ['/a.md'] });
        return [200, { ...decided, resolution: 'approved', draft_revision: 2, files_applied: 1 }];
      case 'POST /api/proposals/{id}/reject':
        return [200, { ...decided, resolution: 'rejected' }];
      case 'POST /api/workflows/{id}/versions':
        return [201, { version_number: 3, created_at: time, created_by_user_id: 'u' }];
      default:
        return problem(404, 'not_found', `No ${route}`);
    }
  };

  const server = http.createServer((request, response) => {
    const serve = async (): Promise<void> => {
      const body = await readBody(request);
      const key = request.headers['idempotency-key'];
      const [method, path] = [request.method ?? '', request.url ?? ''];
      seen.push({ method, path, key: typeof key === 'string' ? key : undefined, body });
      if (dropOnce !== undefined && path.endsWith(dropOnce)) {
        dropOnce = undefined;
        request.socket.destroy();
        return;
      }
      const allowed = request.headers.authorization === 'Bearer good';
      const [status, content] = allowed
        ? answer(method, path)
        : problem(401, 'unauthorized', 'A token is needed');
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(content));
    };
    serve().catch(() => request.socket.destroy());
  });

  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, socket, head) => {
    positions.push(new URL(request.url ?? '', 'http://x').search);
    const steps = script.connections[positions.length - 1] ?? [];
    const [first] = steps;
    if (typeof first === 'object' && 'refuse' in first) {
      socket.end(`HTTP/1.1 ${first.refuse} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (viewer) => {
      for (const step of steps) {
        if (step === 'drop') socket.destroy();
        else if ('close' in step && typeof step.close === 'number') viewer.close(step.close);
        else viewer.send(JSON.stringify(step));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ids,
    seen,
    /** Query of each connection of the viewer. */
    positions,
    stop: async (): Promise<void> => {
      for (const viewer of sockets.clients) viewer.terminate();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};

export const subscribed = (proposalId: string, more: Record<string, unknown> = {}) => ({
  event_type: 'on_subscribed',
  data: {
    thread_id: proposalId,
    proposal_id: proposalId,
    status: 'processing',
    phase: 'streaming',
    epoch: '1.1',
    first_seq: 1,
    last_seq: 0,
    recovery: 'exact',
    trace_id: 't',
    ...more,
  },
});
