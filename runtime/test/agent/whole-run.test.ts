import { test } from 'tap';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, inputOf, statesOf, textsOf, watch } from './runner-harness.js';

test('A run streams tokens, tools and states, and its last state holds the files that it completes with', async (t) => {
  const { runner } = await createTestRunner(t);
  const input = inputOf('Add web search capability to the agent', sampleFiles());
  runner.check(input);
  const { events, done } = watch(runner, input);
  const texts = completedTexts(await done);
  t.match(texts['/definition.json'], /"web_search"/);

  const states = statesOf(events);
  t.equal(events[0]?.event_type, 'on_state_update', 'the whole state comes first');
  t.same(textsOf(states[0]?.files ?? {}), sampleFiles());
  t.same(textsOf(states.at(-1)?.files ?? {}), texts);
  t.ok(states.at(-1)?.todos.every(({ status }) => status === 'completed'));
  t.same(JSON.parse(JSON.stringify(events)), events, 'every event is plain JSON');

  const started = events
    .filter(({ event_type }) => event_type === 'on_tool_start')
    .map(({ data }) => data.tool_call_id);
  const ended = events
    .filter(({ event_type }) => event_type === 'on_tool_end')
    .map(({ data }) => data.tool_call_id);
  t.ok(started.length >= 8);
  t.same([...started].sort(), [...ended].sort());

  const agents = new Set(
    events.filter(({ event_type }) => event_type === 'on_llm_stream').map(({ data }) => data.agent),
  );
  t.ok(
    agents.has('Specification Builder') &&
      agents.has('Agent Writing Agent') &&
      agents.has('Verification Agent'),
  );
  const call = events.find(({ data }) => data.tool_call_chunks !== undefined);
  t.match(call?.data, {
    content: String,
    node: 'model_request',
    message_id: /^run-/,
    tool_call_chunks: [{ index: 1, args: String }],
  });
});

test('Every token arrives when ten runs stream at once without any pause', async (t) => {
  const { runner } = await createTestRunner(t);
  const alone = { nodes: [{ name: 'Alone', type: 'orchestrator' }] };
  const runs = Array.from({ length: 10 }, (_, at) =>
    watch(runner, inputOf(`Make greeting ${at} longer`, sampleFiles(), alone)),
  );
  await Promise.all(runs.map(({ done }) => done));
  for (const { events } of runs) {
    const streamed = new Map<unknown, string>();
    for (const { event_type, data } of events) {
      if (event_type === 'on_llm_stream')
        streamed.set(data.message_id, (streamed.get(data.message_id) ?? '') + data.content);
    }
    const spoken =
      statesOf(events)
        .at(-1)
        ?.messages.filter(({ type }) => type === 'ai') ?? [];
    t.ok(spoken.length >= 4);
    for (const { id, content } of spoken) t.equal(streamed.get(id), content);
  }
});

test('A file that the run was given and deletes is told as null, in the state, at the end and when read later', async (t) => {
  const { runner } = await createTestRunner(t);
  const input = inputOf('Add web search [[delete:/THE_SPEC/plan.md]]', sampleFiles());
  const { events, done, threadId } = watch(runner, input);
  const outcome = await done;
  t.equal(completedTexts(outcome)['/THE_SPEC/plan.md'], null);
  t.equal(statesOf(events).at(-1)?.files['/THE_SPEC/plan.md'], null);
  const read = await runner.read(threadId, input.input_payload.files);
  t.same(read?.files, outcome.status === 'completed' ? outcome.files : null);
  t.notOk('/THE_SPEC/plan.md' in ((await runner.read(threadId))?.files ?? {}));
  t.ok((read?.messages.length ?? 0) > 5);
  t.equal(await runner.read('nobody'), null);
});

test('A run that touches nothing completes with nothing', async (t) => {
  const { runner } = await createTestRunner(t);
  const { done } = watch(runner, inputOf('[[nofiles]] hello'));
  t.same(await done, { status: 'completed', files: {} });
});

test('A definition with one agent and tools that nobody knows runs as well', async (t) => {
  const { runner } = await createTestRunner(t);
  const definition = {
    nodes: [{ type: 'Orchestrator', config: { name: 'Only One', tools: ['web_search', 'read_file'] } }],
    tool_definitions: [{ name: 'web_search', runtime: { script: 'raise SystemExit' } }],
  };
  const { done, events } = watch(runner, inputOf('Create a travel planner workflow', {}, definition));
  t.equal(Object.keys(completedTexts(await done)).length, 7);
  t.equal(events.find(({ event_type }) => event_type === 'on_llm_stream')?.data.agent, 'Only One');
});

test('An observer that throws does not disturb the run', async (t) => {
  const told: string[] = [];
  const { runner } = await createTestRunner(t, { logger: { warn: (_, message) => told.push(message) } });
  const handle = runner.run(
    'thrower',
    inputOf('[[nofiles]]'),
    () => {
      throw new Error('no');
    },
    { resumed: false },
  );
  t.throws(() => watch(runner, inputOf('[[nofiles]]'), 'thrower'), { code: 'already_running' });
  t.equal((await handle.done).status, 'completed');
  t.ok(told.length > 0);
});

test('What two sub-agents edit at the same time is all there, and so is what one of them deletes', async (t) => {
  const { runner } = await createTestRunner(t);
  const { done } = watch(runner, inputOf('Add web search [[delete:/THE_CAST/Lead.md]]', sampleFiles()));
  const texts = completedTexts(await done);
  t.match(texts['/THE_SPEC/constitution.md'], /3\. Facts taken from the web/);
  t.match(texts['/THE_CAST/GreetingAgent.md'], /- web_search/);
  t.equal(texts['/THE_CAST/Lead.md'], null);
});
