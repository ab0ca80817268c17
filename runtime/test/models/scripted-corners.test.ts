import { AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { test } from 'tap';
import { textRead } from '../../src/models/scripted/conversation.js';
import { agentNamed, definitionIn, versionMoved } from '../../src/models/scripted/definition-text.js';
import { directivesOf } from '../../src/models/scripted/directives.js';
import { editCallOf } from '../../src/models/scripted/edit-call.js';
import { withItem, withoutItem, withValue } from '../../src/models/scripted/json-text.js';
import { castPathOf } from '../../src/models/scripted/layout.js';
import {
  withBullet,
  withNumbered,
  withoutBullet,
  withoutNumbered,
} from '../../src/models/scripted/list-text.js';
import { nextTurnOf } from '../../src/models/scripted/script.js';
import { scriptToolsOf } from '../../src/models/scripted/script-tools.js';
import { ScriptedModel } from '../../src/models/scripted/scripted-model.js';
import { subagentTurnOf, taskWithEdits } from '../../src/models/scripted/subagent-script.js';
import { agentNameOf } from '../../src/models/scripted/wish.js';
import { play } from './play.js';
import { sampleFiles } from './sample-specification.js';

test('The same conversation gives the same answer with the same call ids, whoever asks', async (t) => {
  const messages = [new HumanMessage('Add web search')];
  const answers = await Promise.all(
    [1, 2].map(() => new ScriptedModel({ chunkDelayMs: 0 }).invoke(messages)),
  );
  t.same(answers[0]?.tool_calls, answers[1]?.tool_calls);
  t.match(answers[0]?.text, /^This is a script, not a language model/);
  t.match(answers[0]?.tool_calls, [{ name: 'write_todos', id: /^call_[0-9a-f]{24}$/ }]);
  t.equal(new ScriptedModel({ chunkDelayMs: 0 })._llmType(), 'scripted');
});

test('A pause between chunks is kept, and an abort ends it', async (t) => {
  const slow = new ScriptedModel({ chunkDelayMs: 20 });
  const from = performance.now();
  const stream = await slow.stream('Add web search', { signal: AbortSignal.timeout(150) });
  await t.rejects(
    (async () => {
      for await (const _chunk of stream);
    })(),
  );
  t.ok(performance.now() - from >= 100);
});

test('From the task tool the script learns whom it can delegate to', async (t) => {
  const tools = scriptToolsOf([
    { name: 'task', description: 'Agents:\n- spec-writer: writes\n  - guardrail: checks\nno - list: x' },
    { name: 'ls', description: '' },
    { type: 'function' },
  ]);
  t.same(tools.subagents, ['spec-writer', 'guardrail']);
  t.same([...tools.names], ['task', 'ls']);
  t.same(scriptToolsOf([{ name: 'ls' }]).subagents, []);
});

test('A sub-agent makes the edits of its task, reports, and only reports on a task that is not ours', async (t) => {
  const calls = [{ name: 'write_file', args: { file_path: '/a.md', content: 'x' } }];
  const task = new HumanMessage(taskWithEdits(calls));
  t.same(subagentTurnOf([task]).calls, calls);
  t.match(subagentTurnOf([task, new AIMessage('x')]), { calls: [], text: /\/a\.md/ });
  for (const other of ['Check [[slow:5]]', 'Make these edits exactly as they are:\n```json\nno\n```']) {
    t.same(subagentTurnOf([new HumanMessage(other)]).calls, []);
  }
  t.equal(subagentTurnOf([new HumanMessage('Check [[slow:5]]')]).chunkDelayMs, 5);
  t.same(nextTurnOf([task], { names: new Set(['write_file']), subagents: [] }).calls, calls);
});

test('Directives are cut out of the prompt, and what is none stays', async (t) => {
  const { directives, text } = directivesOf('a [[fail:fatal]] [[stall]] [[slow:x]] [[delete:]] [[slow:7]] b');
  t.match(directives, { fail: 'fatal', stall: true, slow: 7, deletes: [] });
  t.equal(text, 'a [[slow:x]] [[delete:]] b');
  const fails = [
    new HumanMessage('[[fail:fatal]] x'),
    new AIMessage({ content: '', tool_calls: [{ name: 'ls', args: {}, id: '1' }] }),
  ];
  t.equal(nextTurnOf(fails, null).ending, 'fail-fatal');
});

test('What the file tool shows is read for what it is', async (t) => {
  t.equal(textRead('@@ lines 1-2 of 2 @@\na\nb'), 'a\nb');
  t.equal(textRead('@@ lines 1-2 of 9; next offset 2 @@\na\nb'), 'unreadable');
  t.equal(textRead("Error: File '/a' not found"), null);
  t.equal(textRead('System reminder: File exists but has empty contents'), '');
  t.equal(textRead('Error: permission denied'), 'unreadable');
});

test('A file that is too long to be read whole is left alone, and the summary says so', async (t) => {
  const read = (id: string, path: string, content: string) => [
    new AIMessage({ content: '', tool_calls: [{ id, name: 'read_file', args: { file_path: path } }] }),
    new ToolMessage({ content, tool_call_id: id }),
  ];
  const messages = [
    new HumanMessage('Make it nicer'),
    new AIMessage({ content: '', tool_calls: [{ id: '0', name: 'write_todos', args: {} }] }),
    ...read('1', '/THE_SPEC/constitution.md', 'cut'),
    ...read('2', '/definition.json', '@@ lines 1-2 of 900 @@\n{'),
    ...read('3', '/THE_SPEC/requirements.md', 'cut'),
    ...read('4', '/THE_SPEC/plan.md', 'cut'),
    new AIMessage({ content: '', tool_calls: [{ id: '9', name: 'write_todos', args: {} }] }),
  ];
  const turn = nextTurnOf(messages, null);
  t.same(turn.calls, []);
  t.match(turn.text, /No file had to change[\s\S]*too long/);
});

test('JSON is edited in place, in every style', async (t) => {
  t.equal(withItem('{"a":[1,2]}', ['a'], 3), '{"a":[1,2,3]}');
  t.equal(withItem('{"a":[1]}', ['a'], 3), '{"a":[1,3]}');
  t.equal(withItem('{"a": [1]}', ['a'], 3), '{"a": [1, 3]}');
  t.equal(withItem('{"a":[]}', ['a'], { b: 1 }), '{"a":[{"b":1}]}');
  t.equal(withItem('{\n  "a": []\n}', ['a'], { b: 1 }), '{\n  "a": [\n    {\n      "b": 1\n    }\n  ]\n}');
  t.equal(withoutItem('[1, 2, 3]', [], 0), '[2, 3]');
  t.equal(withoutItem('[1, 2, 3]', [], 2), '[1, 2]');
  t.equal(withoutItem('[1]', [], 5), '[1]');
  t.equal(withValue('{"a": "x\\"y", "b": {}}', ['a'], 'x"yz'), '{"a": "x\\"yz", "b": {}}');
  t.equal(withValue('{"a": true, "b": "q"}', ['a'], false), '{"a": false, "b": "q"}');
  t.equal(withValue('{"a": "abc"}', ['a'], 'xyz'), '{"a": "xyz"}');
  t.throws(() => withValue('{}', ['a'], 1));
  t.throws(() => withItem('[1]', ['a'], 1));
});

test('Lists are added to and taken from, with a section of their own where there was none', async (t) => {
  for (const text of [
    '',
    'No list',
    'A\n\n1. x\n   more\n2. y\n\nEnd\n',
    '# T\n\n## Tools\n\ntext\n',
    '# T\n\n## Tools\n\n- a\n\n## Else\n\n- b\n',
  ]) {
    const numbered = withNumbered(text, 'new', 'Added');
    t.equal(withNumbered(numbered, 'new', 'Added'), numbered);
    t.equal(withoutNumbered(numbered, 'new', 'Added'), text);
    const bulleted = withBullet(text, 'new', /tools/i, 'Added');
    t.equal(withBullet(bulleted, 'new', /tools/i, 'Added'), bulleted);
    t.equal(withoutBullet(bulleted, 'new', 'Added'), text);
    t.equal(withoutBullet(text, 'new', 'Added'), text);
    t.equal(withoutNumbered(text, 'new', 'Added'), text);
  }
  t.equal(withoutNumbered('1. a\n2. b\n3. c\n\n7. z', 'a', 'X'), '1. b\n2. c\n\n7. z');
});

test('A replacement takes in lines around it until it stands only once', async (t) => {
  const edit = editCallOf({ path: '/a', before: 'x\nx\nx', after: 'x\ny\nx' });
  t.match(edit, { name: 'edit_file' });
  t.match(editCallOf({ path: '/a', before: '', after: 'x' }), { name: 'write_file' });
  t.match(editCallOf({ path: '/a', before: 'x', after: null }), { name: 'delete' });
});

test('Definitions that are none are told from those that are', async (t) => {
  for (const none of ['', '[]', 'null', '{}', '{"nodes":[]}', '{"nodes":[{"id":"a"},7]}'])
    t.equal(definitionIn(none), null, none);
  const agents = definitionIn('{"nodes":[{"name":"Greeting Agent"},{"name":"Agent"}]}')?.agents ?? [];
  t.equal(agentNamed(agents, 'greeting')?.name, 'Greeting Agent');
  t.equal(agentNamed(agents, 'nobody'), null);
  t.equal(versionMoved('v2.3.4', -1), 'v2.2.4');
  t.equal(versionMoved('1.0.0', -1), '1.0.0');
  t.equal(versionMoved('latest', 1), 'latest');
  t.equal(castPathOf('../a/b'), '/THE_CAST/-a-b.md');
  t.equal(castPathOf('..'), '/THE_CAST/agent.md');
  t.equal(agentNameOf('fact  checking-agent'), 'FactCheckingAgent');
});

test('What cannot be done changes nothing and is said', async (t) => {
  const files = sampleFiles();
  for (const [prompt, said] of [
    ['Remove the weather agent', /There is no agent/],
    ['Remove the Lead agent', /stays/],
    ['Rename NobodyAgent to SomebodyAgent', /no such agent/],
    ['Rename GreetingAgent to Lead', /is there already/],
    ['Remove weather', /nothing to remove/],
  ] as const) {
    const played = play(prompt, files);
    t.same(played.files, files, prompt);
    t.match(played.texts.at(-1), said);
  }
  const renamed = play('Rename GreetingAgent to ???', files);
  t.match(renamed.files['/THE_SPEC/requirements.md'], /Rename GreetingAgent/);
});

test('An agent that is named, or looked at, gets the wish into its prompt', async (t) => {
  const byName = play('The GreetingAgent should never shout', sampleFiles()).files;
  t.match(byName['/definition.json'], /Follow this wish of the user/);
  const looked = play('Be nicer\n\n## Context file\n\n/THE_CAST/Lead.md', sampleFiles()).files;
  t.match(looked['/definition.json'], /Coordinate the others\. Follow this wish/);
  const bare = { '/definition.json': '{"nodes":[{"name":"Solo Agent"}]}' };
  t.same(Object.keys(play('The Solo Agent should sing', bare).files).sort(), [
    '/THE_SPEC/plan.md',
    '/THE_SPEC/requirements.md',
    '/definition.json',
  ]);
  t.equal(play('Add web search', bare).files['/definition.json'], bare['/definition.json']);
  const spaced = play('Rename Solo to Duo', bare).files['/definition.json'];
  t.match(spaced, /"Duo"/);
});

test('A page that was made from the definition is made anew with it', async (t) => {
  const made = play('Create a travel planner workflow', {}).files;
  const added = play('Add web search to the Travel Planner agent', made).files;
  t.match(added['/THE_CAST/TravelPlannerAgent.md'], /## Tools\n\n- web_search\n\n## Instructions/);
  t.same(play('Remove web search', added).files, made);
});
