import { test } from 'tap';
import { play } from './play.js';
import { sampleFiles } from './sample-specification.js';

const prompts = [
  'Add web search capability to the agent',
  'Add e-mail sending to the GreetingAgent',
  'Add support for Klingon greetings',
  'Add a fact checking agent',
  'Rename GreetingAgent to WelcomeAgent',
  'Make the tone more formal',
  'The GreetingAgent should never use exclamation marks',
  'Create a travel planner workflow',
  'Remove web search',
];

function changed(before: Record<string, string>, after: Record<string, string>): string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((path) => before[path] !== after[path])
    .sort();
}

test('Adding web search changes the constitution, the page of the agent and the definition, and nothing else', async (t) => {
  const before = sampleFiles();
  const { files, texts } = play('Add web search capability to the agent', before);
  t.same(changed(before, files), [
    '/THE_CAST/GreetingAgent.md',
    '/THE_SPEC/constitution.md',
    '/definition.json',
  ]);
  const definition = JSON.parse(files['/definition.json'] ?? '');
  t.equal(definition.version, '1.1.0');
  t.same(definition.nodes[1].config.tools, ['clock', 'web_search']);
  t.equal(definition.tool_definitions[0].name, 'web_search');
  t.match(definition.nodes[1].config.system_prompt, /^Greet people\. Use web_search to /);
  t.match(files['/THE_SPEC/constitution.md'], /\n2\. Be short\.\n3\. Facts taken from the web/);
  t.match(files['/THE_CAST/GreetingAgent.md'], /- clock\n- web_search\n/);
  t.match(files['/THE_CAST/GreetingAgent.md'], definition.nodes[1].config.system_prompt);
  t.match(texts[0], /This is a script, not a language model/);
  t.match(texts.at(-1), /\/definition\.json \(changed\)/);
});

for (const prompt of prompts) {
  for (const [about, start] of [
    ['a specification', sampleFiles()],
    ['nothing', {}],
  ] as const) {
    test(`"${prompt}" said twice to ${about} changes nothing the second time`, async (t) => {
      const once = play(prompt, start).files;
      t.same(play(prompt, once).files, once);
    });
  }
}

const formats: [string, (files: Record<string, string>) => Record<string, string>][] = [
  ['as it is printed', (files) => files],
  ['with tabs', (files) => reformatted(files, '\t')],
  ['on one line', (files) => reformatted(files, '')],
  [
    'written by hand',
    (files) => ({
      ...files,
      '/definition.json':
        '{ "version": "2.3.4",\n  "nodes": [ {"id":"a", "config": {"name":"Gr\\u00fc\\u00dfer", "system_prompt":"Sag \\"hallo\\" zu \\u00fcber 100.", "tools": ["x", "y"]}} ], "tool_definitions": [ {"name":"x"} ] }',
      '/THE_SPEC/constitution.md': 'No list at all, no final newline',
      '/THE_CAST/Grüßer.md': 'Sag "hallo" zu über 100.',
    }),
  ],
  [
    'with flat nodes',
    (files) => ({
      ...files,
      '/definition.json': '{"nodes":[{"name":"GreetingAgent","system_prompt":"","tools":[]}]}',
    }),
  ],
  [
    'as a template of the editor',
    (files) => ({
      ...files,
      '/definition.json': `{"graph":{"entryPoint":"a","nodes":[{"id":"a","data":{"name":"Lead","system_prompt":"x","tools":[]}},{"id":"b","data":{"name":"GreetingAgent","system_prompt":"Greet people.","tools":[]}}],"edges":[]}}`,
    }),
  ],
];

function reformatted(files: Record<string, string>, indent: string): Record<string, string> {
  return {
    ...files,
    '/definition.json': JSON.stringify(JSON.parse(files['/definition.json'] ?? ''), null, indent),
  };
}

for (const [how, format] of formats) {
  for (const [add, remove] of [
    ['Add web search', 'Remove web search'],
    ['Add e-mail sending to the GreetingAgent', 'Remove e-mail sending from the GreetingAgent'],
    ['Add support for Klingon greetings', 'Remove support for Klingon greetings'],
    ['Add a fact checking agent', 'Remove the fact checking agent'],
  ] as const) {
    test(`"${remove}" undoes "${add}" byte for byte in a definition ${how}`, async (t) => {
      const before = format(sampleFiles());
      const added = play(add, before).files;
      t.notSame(added, before);
      t.same(play(remove, added).files, before);
    });
  }
}

test('Two capabilities can be taken away in any order', async (t) => {
  const before = sampleFiles();
  const both = play('Add e-mail sending', play('Add web search', before).files).files;
  t.same(play('Remove e-mail sending', play('Remove web search', both).files).files, before);
});

test('Different prompts give different files', async (t) => {
  const results = prompts.slice(0, 7).map((prompt) => JSON.stringify(play(prompt, sampleFiles()).files));
  t.equal(new Set(results).size, 7);
});

test('From nothing a whole specification comes, with a definition that names its agents', async (t) => {
  const { files } = play('Create a travel planner workflow', {});
  t.same(Object.keys(files).sort(), [
    '/THE_CAST/Coordinator.md',
    '/THE_CAST/TravelPlannerAgent.md',
    '/THE_SPEC/constitution.md',
    '/THE_SPEC/plan.md',
    '/THE_SPEC/requirements.md',
    '/definition.json',
    '/user_request.md',
  ]);
  const definition = JSON.parse(files['/definition.json'] ?? '');
  t.same(
    definition.nodes.map((node: { config: { name: string } }) => node.config.name),
    ['Coordinator', 'TravelPlannerAgent'],
  );
  t.match(files['/user_request.md'], 'Create a travel planner workflow');
});

test('A capability asked of nothing is in the specification that is made', async (t) => {
  const { files } = play('Add web search', {});
  t.match(files['/definition.json'], /"web_search"/);
  t.match(files['/THE_SPEC/constitution.md'], /Facts taken from the web/);
});

test('A wish that no script understands becomes a requirement in its own words and a step of the plan', async (t) => {
  const before = sampleFiles();
  const { files } = play('Make the tone more formal', before);
  t.match(files['/THE_SPEC/requirements.md'], '2. "Make the tone more formal"');
  t.match(files['/THE_SPEC/plan.md'], /2\. .*Make the tone more formal/);
});

test('Renaming moves the page of the agent and changes its name everywhere', async (t) => {
  const { files } = play('Rename GreetingAgent to WelcomeAgent', sampleFiles());
  t.notOk('/THE_CAST/GreetingAgent.md' in files);
  t.match(files['/THE_CAST/WelcomeAgent.md'], /^# WelcomeAgent\n/);
  t.match(files['/definition.json'], /"name": "WelcomeAgent"/);
});

test('A definition that cannot be read is left as it is, and the wish is noted', async (t) => {
  const before = { ...sampleFiles(), '/definition.json': '{ not json' };
  const { files, texts } = play('Add web search', before);
  t.equal(files['/definition.json'], '{ not json');
  t.match(files['/THE_SPEC/requirements.md'], /Add web search/);
  t.match(texts.at(-1), /left as it is/);
});

test('Directives delete files, end without files and take more turns', async (t) => {
  const before = sampleFiles();
  const deleted = play('Add web search [[delete:/THE_SPEC/plan.md]]', before).files;
  t.notOk('/THE_SPEC/plan.md' in deleted);
  t.same(play('[[nofiles]]', {}).files, {});
  const few = play('Add web search', before).texts.length;
  t.equal(play('Add web search [[turns:3]]', before).texts.length, few + 3);
  t.notMatch(JSON.stringify(play('Add web search [[turns:1]] [[odd]]', before).files), /turns:/);
});
