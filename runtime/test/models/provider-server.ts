import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';

/** What the server's model says in one turn, or the status that it refuses with. */
export interface Reply {
  text?: string;
  calls?: { name: string; args: Record<string, unknown> }[];
  status?: number;
  /** Cuts the connection in the middle of the stream. */
  cut?: boolean;
}

export interface ProviderRequest {
  path: string;
  body: {
    model: string;
    messages: { role: string; name?: string; content: unknown }[];
    tools?: unknown[];
    stream?: boolean;
  };
}

/** A provider on a free port that speaks OpenAI chat completions and Anthropic messages, streaming. */
export async function createProviderServer(
  t: Test,
  reply: (request: ProviderRequest, turn: number) => Reply,
): Promise<{ url: string; requests: ProviderRequest[] }> {
  const requests: ProviderRequest[] = [];
  const server = createServer((req, res) => {
    void answer(req, res).catch(() => res.destroy());
  });
  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    let text = '';
    for await (const chunk of req) text += chunk;
    const request: ProviderRequest = { path: req.url ?? '', body: JSON.parse(text) };
    requests.push(request);
    const said = reply(request, requests.length);
    if (said.status !== undefined) {
      res.writeHead(said.status, { 'content-type': 'application/json' });
      res.end(
        JSON.stringify({
          type: 'error',
          error: { type: 'refused', message: `secret-host says ${said.status}` },
        }),
      );
      return;
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    const events = request.path.endsWith('/messages') ? anthropicEvents(said) : openAiEvents(said);
    for (const event of said.cut ? events.slice(0, 2) : events) res.write(event);
    if (said.cut) res.socket?.destroy();
    else res.end();
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

function openAiEvents({ text = '', calls = [] }: Reply): string[] {
  // Replies with the same id would replace each other in the conversation.
  const id = `chatcmpl-${randomUUID()}`;
  const chunk = (delta: unknown, finish: string | null = null) =>
    `data: ${JSON.stringify({ id, object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
  return [
    chunk({ role: 'assistant', content: '' }),
    ...text.split(/(?<= )/).map((content) => chunk({ content })),
    ...calls.flatMap(({ name, args }, index) => [
      chunk({
        tool_calls: [
          { index, id: `call_${randomUUID()}`, type: 'function', function: { name, arguments: '' } },
        ],
      }),
      chunk({ tool_calls: [{ index, function: { arguments: JSON.stringify(args) } }] }),
    ]),
    chunk({}, calls.length > 0 ? 'tool_calls' : 'stop'),
    'data: [DONE]\n\n',
  ];
}

function anthropicEvents({ text = '', calls = [] }: Reply): string[] {
  const event = (type: string, data: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
  const message = {
    id: `msg_${randomUUID()}`,
    type: 'message',
    role: 'assistant',
    model: 'm',
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens: 1, output_tokens: 1 },
  };
  return [
    event('message_start', { message }),
    event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }),
    ...text
      .split(/(?<= )/)
      .map((piece) => event('content_block_delta', { index: 0, delta: { type: 'text_delta', text: piece } })),
    event('content_block_stop', { index: 0 }),
    ...calls.flatMap(({ name, args }, at) => [
      event('content_block_start', {
        index: at + 1,
        content_block: { type: 'tool_use', id: `toolu_${randomUUID()}`, name, input: {} },
      }),
      event('content_block_delta', {
        index: at + 1,
        delta: { type: 'input_json_delta', partial_json: JSON.stringify(args) },
      }),
      event('content_block_stop', { index: at + 1 }),
    ]),
    event('message_delta', {
      delta: { stop_reason: calls.length > 0 ? 'tool_use' : 'end_turn', stop_sequence: null },
      usage: { output_tokens: 9 },
    }),
    event('message_stop', {}),
  ];
}
