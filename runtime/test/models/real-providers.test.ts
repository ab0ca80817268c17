import { type Test, test } from 'tap';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import { modelSettingOf } from '../../src/models/model-setting.js';
import { completedTexts, createStore, inputOf, statesOf, watch } from '../agent/runner-harness.js';
import { createProviderServer, type ProviderRequest, type Reply } from './provider-server.js';

/** The variables that the providers' own packages read; the rest of the suite must not see them. */
function pointProvidersAt(t: Test, url: string, key = 'a-key'): void {
  const variables = {
    OPENAI_BASE_URL: `${url}/v1`,
    OPENAI_API_KEY: key,
    ANTHROPIC_BASE_URL: url,
    ANTHROPIC_API_KEY: key,
  };
  Object.assign(process.env, variables);
  t.teardown(() => {
    for (const name of Object.keys(variables)) delete process.env[name];
  });
}

async function runWith(
  t: Test,
  model: string,
  reply: (request: ProviderRequest, turn: number) => Reply,
  definition = {},
) {
  const server = await createProviderServer(t, reply);
  pointProvidersAt(t, server.url);
  const store = await createStore(t);
  const logged: unknown[] = [];
  const runner = createDeepAgentRunner({
    ...store,
    model: modelSettingOf(model, { maxRetries: 0 }),
    logger: { warn: (fields) => logged.push(fields) },
    tools: {},
  });
  const input = inputOf('Write a note', { '/a.md': 'old\n' }, definition);
  runner.check(input);
  const watched = watch(runner, input);
  const outcome = await watched.done;
  return { ...watched, outcome, server };
}

const writing = ({ body }: ProviderRequest): Reply => {
  const turns = body.messages.filter(({ role }) => role === 'assistant').length;
  const delegated = JSON.stringify(body.messages).includes('Write the second note');
  const isSub = delegated && !JSON.stringify(body.tools).includes('"task"');
  if (isSub) {
    return turns === 0
      ? {
          text: 'I write it. ',
          calls: [{ name: 'write_file', args: { file_path: '/second.md', content: 'two\n' } }],
        }
      : { text: 'Written.' };
  }
  if (turns === 0)
    return {
      text: 'A plan first. ',
      calls: [{ name: 'write_todos', args: { todos: [{ content: 'write', status: 'in_progress' }] } }],
    };
  if (turns === 1) {
    return {
      text: 'Both at once. ',
      calls: [
        { name: 'write_file', args: { file_path: '/first.md', content: 'one\n' } },
        {
          name: 'task',
          args: { description: 'Write the second note', subagent_type: 'agent-writing-agent' },
        },
      ],
    };
  }
  return { text: 'All done.' };
};

for (const [model, path] of [
  ['openai:gpt-test', '/v1/chat/completions'],
  ['anthropic:claude-test', '/v1/messages'],
] as const) {
  test(`A run on ${model} streams text and tool calls, delegates, and completes with the files`, async (t) => {
    const { outcome, events, server } = await runWith(t, model, writing);
    t.same(completedTexts(outcome), { '/a.md': 'old\n', '/first.md': 'one\n', '/second.md': 'two\n' });
    t.ok(server.requests.every((request) => request.path.startsWith(path)));
    t.ok(server.requests.every(({ body }) => body.stream === true));
    const said = events.filter(({ event_type }) => event_type === 'on_llm_stream');
    t.equal(
      said
        .map(({ data }) => data.content)
        .join('')
        .includes('A plan first. '),
      true,
    );
    t.ok(said.some(({ data }) => data.tool_call_chunks !== undefined));
    t.ok(said.some(({ data }) => data.agent === 'Agent Writing Agent'));
    t.same(statesOf(events).at(-1)?.todos, [{ content: 'write', status: 'in_progress' }]);
    t.ok(
      server.requests.every(({ body }) =>
        body.messages.every(({ name }) => name === undefined || /^[\w-]+$/.test(name)),
      ),
    );
  });
}

test('An agent is run on the model that its definition names', async (t) => {
  const definition = {
    nodes: [{ name: 'Solo', type: 'orchestrator', model: { provider: 'anthropic', model: 'claude-own' } }],
  };
  const { outcome, server } = await runWith(
    t,
    'openai:gpt-test',
    () => ({ text: 'Nothing to do.' }),
    definition,
  );
  t.equal(outcome.status, 'completed');
  t.same(
    server.requests.map(({ body }) => body.model),
    ['claude-own'],
  );
});

for (const [reply, code, retryable] of [
  [{ status: 401 }, 'model_authentication', false],
  [{ status: 403 }, 'model_authentication', false],
  [{ status: 404 }, 'model_not_found', false],
  [{ status: 400 }, 'model_rejected', false],
  [{ status: 429 }, 'model_rate_limited', true],
  [{ status: 500 }, 'model_error', true],
  [{ cut: true, text: 'so far and no further' }, 'model_unreachable', true],
] as const) {
  for (const model of ['openai:gpt-test', 'anthropic:claude-test']) {
    test(`${model} answering ${JSON.stringify(reply)} fails the run as ${code}, without a host in the message`, async (t) => {
      const { outcome } = await runWith(t, model, () => reply);
      t.match(outcome, { status: 'failed', error: { code, retryable } });
      t.notMatch(JSON.stringify(outcome), /secret-host|127\.0\.0\.1|at .*\.js/);
    });
  }
}

test('A provider that is not there fails the run as unreachable', async (t) => {
  pointProvidersAt(t, 'http://127.0.0.1:1');
  const store = await createStore(t);
  const runner = createDeepAgentRunner({
    ...store,
    model: modelSettingOf('openai:gpt-test', { maxRetries: 0 }),
  });
  t.match(await watch(runner, inputOf('Hi')).done, {
    status: 'failed',
    error: { code: 'model_unreachable', retryable: true },
  });
});

test('Without a key the run fails as an authentication failure', async (t) => {
  const store = await createStore(t);
  for (const model of ['openai:gpt-test', 'anthropic:claude-test']) {
    const runner = createDeepAgentRunner({ ...store, model: modelSettingOf(model, { maxRetries: 0 }) });
    t.match(await watch(runner, inputOf('Hi')).done, {
      status: 'failed',
      error: { code: 'model_authentication', retryable: false },
    });
  }
});

test('Unsafe paths, throwing tools, unknown tools and unknown agents come back to the model as results', async (t) => {
  const paths = [
    '../etc/x',
    'relative.md',
    '//double.md',
    '/a/./b.md',
    '/a/../b.md',
    '/large_tool_results/x',
    '/back\\slash',
  ];
  const { outcome, events } = await runWith(t, 'openai:gpt-test', ({ body }) =>
    body.messages.some(({ role }) => role === 'assistant')
      ? { text: 'Enough.' }
      : {
          calls: [
            ...paths.map((file_path) => ({ name: 'write_file', args: { file_path, content: 'x' } })),
            { name: 'no_such_tool', args: {} },
            { name: 'task', args: { description: 'x', subagent_type: 'nobody' } },
            { name: 'write_file', args: { file_path: '/fine.md', content: 'fine' } },
            { name: 'read_file', args: { file_path: '/a.md' } },
          ],
        },
  );
  t.same(completedTexts(outcome), { '/a.md': 'old\n', '/fine.md': 'fine' });
  const refused = events.filter(
    ({ event_type, data }) => event_type === 'on_tool_end' && data.status === 'error',
  );
  t.ok(refused.length >= paths.length);
});

test('A model that calls tools for ever is stopped', async (t) => {
  const { outcome } = await runWith(t, 'openai:gpt-test', () => ({
    calls: [{ name: 'ls', args: { path: '/' } }],
  }));
  t.match(outcome, {
    status: 'failed',
    error: { code: /^(recursion_limit|model_call_limit)$/, retryable: false },
  });
});
