import { test } from 'tap';
import { slugOf, teamOf } from '../../src/agent/agent-definition.js';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import type { RunInput } from '../../src/agent-runner.js';
import { checkModel } from '../../src/models/chat-models.js';
import { modelSettingOf } from '../../src/models/model-setting.js';
import { createStore, inputOf } from './runner-harness.js';

test('An empty definition means the built-in specification builder with its five specialists', async (t) => {
  for (const definition of [{}, { nodes: [] }, { user_request: 'x' }]) {
    const team = teamOf(definition);
    t.equal(team.main.displayName, 'Specification Builder');
    t.same(
      team.specialists.map(({ slug }) => slug),
      [
        'guardrail-agent',
        'impact-analysis-agent',
        'specification-writing-agent',
        'agent-writing-agent',
        'verification-agent',
      ],
    );
  }
});

test('The recorded form is read: the last orchestrator leads, the others vanish, duplicates are dropped', async (t) => {
  const team = teamOf({
    tool_definitions: [
      { name: 'web search', description: 'searches', runtime: { script: 'boom' } },
      { name: '' },
      7,
    ],
    nodes: [
      { type: 'Orchestrator', config: { name: 'Start' } },
      {
        type: 'Specialist',
        config: {
          name: 'Guardrail Agent',
          system_prompt: 'x'.repeat(300),
          tools: ['web search', { name: 'b' }, 3],
        },
      },
      {
        type: 'Orchestrator',
        config: { name: 'Main Orchestrator', model: { provider: 'openai', model: 'gpt-x' } },
      },
      { type: 'Specialist', config: { name: 'guardrail agent' } },
      { type: 'Specialist', config: { name: 'Main Orchestrator' } },
      { config: {} },
    ],
  });
  t.equal(team.main.slug, 'main-orchestrator');
  t.same(team.main.model, { provider: 'openai', model: 'gpt-x' });
  t.same(
    team.specialists.map(({ slug }) => slug),
    ['guardrail-agent', 'unnamed-agent'],
  );
  t.equal(team.specialists[0]?.displayName, 'Guardrail Agent');
  t.equal(team.specialists[0]?.description, `${'x'.repeat(200)}...`);
  t.same(team.specialists[0]?.tools, ['web_search', 'b']);
  t.same([...team.toolNotes], [['web_search', { description: 'searches' }]]);
});

test('Flat nodes are read, and without an orchestrator the first one leads and is no specialist', async (t) => {
  const team = teamOf({
    nodes: [
      { name: 'A', model: 'anthropic:claude:x' },
      { name: 'B', model: 'just-a-name' },
      { name: 'C', model: { model_name: 'm' } },
    ],
  });
  t.equal(team.main.slug, 'a');
  t.same(team.main.model, { provider: 'anthropic', model: 'claude:x' });
  t.same(
    team.specialists.map(({ model }) => model),
    [null, { provider: 'openai', model: 'm' }],
  );
});

test("The editor's template is read, with its entry point as the leader", async (t) => {
  const team = teamOf({
    graph: {
      entryPoint: 'n2',
      nodes: [
        {
          id: 'n1',
          data: {
            name: 'Helper',
            displayRole: 'Specialist',
            system_prompt: 'Help.',
            llm_config: { provider: 'openai', model: 'gpt-y' },
          },
        },
        { id: 'n2', data: { name: 'Chief', displayRole: 'Orchestrator' } },
      ],
    },
  });
  t.equal(team.main.displayName, 'Chief');
  t.match(team.specialists, [{ slug: 'helper', model: { model: 'gpt-y' }, description: 'Help.' }]);
});

test('A definition whose nodes cannot be read is refused with a code', async (t) => {
  t.throws(() => teamOf({ nodes: 'all' }), { code: 'invalid_definition' });
  t.throws(() => teamOf({ nodes: [1] }), { code: 'invalid_definition' });
});

test('Names become slugs that every provider accepts', async (t) => {
  for (const [name, slug] of [
    ['Guardrail Agent', 'guardrail-agent'],
    ['GreetingAgent', 'greeting-agent'],
    ['Größer & Söhne!', 'gro-er-sohne'],
    ['日本', 'agent'],
    ['x'.repeat(99), 'x'.repeat(60)],
  ] as const) {
    t.equal(slugOf(name), slug);
    t.match(slugOf(name), /^[a-z0-9-]{1,60}$/);
  }
});

test('Models are read from their setting and checked before a run: unknown provider, missing package', async (t) => {
  t.same(modelSettingOf(''), { kind: 'scripted', chunkDelayMs: 15 });
  t.same(modelSettingOf('scripted', { chunkDelayMs: 0 }), { kind: 'scripted', chunkDelayMs: 0 });
  t.same(modelSettingOf('openai:a:b'), { kind: 'provider', provider: 'openai', model: 'a:b', maxRetries: 2 });
  for (const text of ['gpt-4', ':x', 'openai:'])
    t.throws(() => modelSettingOf(text), { code: 'invalid_model' });
  t.throws(() => checkModel(modelSettingOf('nobody:x')), { code: 'invalid_model', message: /not known/ });
  t.throws(() => checkModel(modelSettingOf('ollama:x')), { code: 'invalid_model', message: /not installed/ });
  t.doesNotThrow(() => checkModel(modelSettingOf('anthropic:x'), [{ model: null }]));
  t.throws(() => checkModel(modelSettingOf('openai:x'), [{ model: { provider: 'toString', model: 'm' } }]), {
    code: 'invalid_model',
  });
  t.doesNotThrow(() =>
    checkModel(modelSettingOf('scripted'), [{ model: { provider: 'nobody', model: 'm' } }]),
  );
});

test('An input is checked: something to do, and files that can be files', async (t) => {
  const store = await createStore(t);
  const runner = createDeepAgentRunner({ ...store, model: modelSettingOf('scripted') });
  const check = (input_payload: unknown, agent_definition = {}) =>
    runner.check({ agent_definition, input_payload } as RunInput);
  t.doesNotThrow(() => runner.check(inputOf('Hi', { '/a.md': 'x' })));
  t.doesNotThrow(() => check({ instructions: 'Do it', context: 'here', context_file_path: '/a.md' }));
  t.doesNotThrow(() => check({}, { user_request: 'Do it' }));
  t.doesNotThrow(() =>
    check({
      messages: [
        { role: 'system', content: 's' },
        { role: 'assistant', content: 'a' },
        { role: 'user', content: 'u' },
      ],
    }),
  );
  const one = [{ role: 'user', content: 'Hi' }];
  for (const bad of [
    {},
    { messages: [] },
    { messages: 'Hi' },
    { messages: [{ role: 'user' }] },
    { messages: [null] },
    { messages: [{ role: 'user', content: '  ' }] },
    { messages: one, files: [] },
    { messages: one, files: { 'a.md': { content: [] } } },
    { messages: one, files: { '/../a.md': { content: [] } } },
    { messages: one, files: { [`/${'x'.repeat(600)}`]: { content: [] } } },
    { messages: one, files: { '/large_tool_results/a': { content: [] } } },
    { messages: one, files: { '/a.md': { content: 'text' } } },
    { messages: one, files: { '/a.md': { content: [1] } } },
    { messages: one, files: { '/a.md': null } },
  ]) {
    t.throws(() => check(bad), { code: 'invalid_input' }, JSON.stringify(bad).slice(0, 80));
  }
});
