import { test } from 'tap';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, inputOf, statesOf, watch } from './runner-harness.js';

test('A message of the reader is heard before the next model turn and seen in the following state', async (t) => {
  const { runner } = await createTestRunner(t);
  const { handle, seen, events } = watch(runner, inputOf('Add web search', sampleFiles()));
  await seen(({ event_type, data }) => event_type === 'on_tool_start' && data.name === 'write_todos');
  handle.message('Add e-mail sending to the GreetingAgent');
  const sentAt = events.length;
  const texts = completedTexts(await handle.done);
  t.match(texts['/definition.json'], /"web_search"/, 'the first wish is not forgotten');
  t.match(texts['/definition.json'], /"send_email"/);
  const after = statesOf(events.slice(sentAt));
  const shown = after.findIndex(({ messages }) =>
    messages.some(({ content }) => /e-mail sending/.test(content)),
  );
  t.ok(shown >= 0 && shown <= 2);
});

test('A message that arrives in the last turn gets a turn of its own', async (t) => {
  const { runner } = await createTestRunner(t);
  const { handle, seen } = watch(runner, inputOf('Add web search', sampleFiles()));
  await seen(({ event_type, data }) => event_type === 'on_llm_stream' && data.content === 'Done');
  handle.message('Remove web search');
  t.same(completedTexts(await handle.done), Object.fromEntries(Object.entries(sampleFiles()).sort()));
});
