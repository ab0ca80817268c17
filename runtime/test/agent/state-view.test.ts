import { AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { test } from 'tap';
import { isInternalPath, pathFault } from '../../src/agent/file-rules.js';
import { runEventOf } from '../../src/agent/run-events.js';
import { shortened } from '../../src/agent/short-text.js';
import { createStateView } from '../../src/agent/state-view.js';
import { changedFiles } from '../../src/agent/subagent-files.js';
import { toolsOf } from '../../src/agent/tool-registry.js';

const file = (text: string) => ({ content: text.split('\n'), created_at: 'c', modified_at: 'm' });

test('Two sub-agents that work at once are seen together, until the main agent has what they brought back', async (t) => {
  const view = createStateView(['/a', '/b']);
  const root = { '/a': file('a'), '/b': file('b') };
  t.ok(view.update([], { files: root, messages: [] }));
  t.ok(view.update(['tools:1'], { files: root, messages: [] }) === null, 'nothing has changed yet');
  view.update(['tools:2'], { files: root, messages: [] });
  view.update(['tools:1'], { files: { ...root, '/a': file('a2') }, messages: [] });
  const both = view.update(['tools:2'], { files: { '/a': root['/a'], '/c': file('c') }, messages: [] });
  t.same(both?.files, { '/a': file('a2'), '/c': file('c'), '/b': null });
  view.update([], { files: { '/a': file('a2') }, messages: [] });
  t.same(view.files(), { '/a': file('a2'), '/b': null });
});

test("The library's own entries, unsafe paths and what is no text are never shown", async (t) => {
  const view = createStateView([]);
  view.update([], {
    files: {
      '/large_tool_results/x': file('x'),
      '/conversation_history/y.md': file('y'),
      '../z': file('z'),
      '/v2.md': { content: 'one\ntwo', mimeType: 'text/markdown', created_at: 'c', modified_at: 'm' },
      '/binary': { content: new Uint8Array(2) },
      '/odd': 7,
    },
  });
  t.same(Object.keys(view.files()), ['/v2.md']);
  t.same(view.files()['/v2.md']?.content, ['one', 'two']);
});

test('Messages are told compactly: results of tools cut, arguments left out', async (t) => {
  const view = createStateView([]);
  const told = view.update([], {
    messages: [
      new HumanMessage({ content: 'hi', id: 'h' }),
      new AIMessage({ content: 'yo', id: 'a', tool_calls: [{ id: 'c', name: 'ls', args: { path: '/' } }] }),
      new ToolMessage({ content: 'x'.repeat(2000), tool_call_id: 'c', name: 'ls', id: 't' }),
    ],
  });
  t.match(told?.messages, [
    { type: 'human', id: 'h', content: 'hi' },
    { type: 'ai', tool_calls: [{ id: 'c', name: 'ls' }] },
    { type: 'tool', tool_call_id: 'c', content: /more characters/ },
  ]);
  t.ok(JSON.stringify(told).length < 1000);
});

test('Only what is known in the stream becomes an event', async (t) => {
  const view = createStateView([]);
  const names = new Map([['a', 'Agent A']]);
  const event = (mode: string, data: unknown) => runEventOf([[], mode, data], view, names);
  t.equal(event('messages', [new ToolMessage({ content: 'x', tool_call_id: 'c' }), {}]), null);
  t.equal(event('messages', [new AIMessage(''), {}]), null);
  t.match(event('messages', [new AIMessage('x'), { lc_agent_name: 'a' }]), {
    data: { content: 'x', agent: 'Agent A' },
  });
  t.match(event('messages', [new AIMessage('x'), { lc_agent_name: 'b' }]), { data: { agent: 'b' } });
  t.match(event('messages', [new AIMessage('x'), {}]), { data: { agent: null } });
  t.equal(event('values', { __interrupt__: [] }), null);
  t.equal(event('updates', {}), null);
  t.equal(event('custom', 'anything'), null);
});

test('A path has one spelling, and reserved folders are nobody’s', async (t) => {
  for (const bad of [
    '',
    'a',
    '/',
    '/a/',
    '//a',
    '/./a',
    '/a/..',
    '/~/a',
    '/a\\b',
    '/a\nb',
    `/${'x'.repeat(512)}`,
  ])
    t.not(pathFault(bad), null, bad);
  for (const good of ['/a', '/THE_SPEC/a.md', '/.hidden', '/a..b', '/ü x.md'])
    t.equal(pathFault(good), null, good);
  t.ok(isInternalPath('/large_tool_results/x'));
});

test('A text that is cut never ends in half a character', async (t) => {
  t.equal(shortened('abc', 3), 'abc');
  t.equal(shortened('ab😀cd', 3), 'ab… (4 more characters)');
});

test('A sub-agent brings back what is new, different or gone', async (t) => {
  const before = { '/same': file('s'), '/old': file('o'), '/gone': file('g') };
  t.same(changedFiles(before, { '/same': file('s'), '/old': file('n'), '/new': file('x') }), {
    '/old': file('n'),
    '/new': file('x'),
    '/gone': null,
  });
});

test('A tool that nobody knows says so, and built-in names ask for nothing', async (t) => {
  const [stub, ...others] = toolsOf(['web_search', 'web_search', 'ls', 'task'], new Map(), {});
  t.equal(others.length, 0);
  t.match(await stub?.invoke({ input: 'x' }), /not available/);
  if (stub) t.same(toolsOf(['web_search'], new Map(), { web_search: stub }), [stub]);
});
