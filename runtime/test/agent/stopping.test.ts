import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'tap';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import type { RunEvent } from '../../src/agent-runner.js';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, inputOf, statesOf, watch } from './runner-harness.js';

const token = ({ event_type }: RunEvent) => event_type === 'on_llm_stream';
const cancelled = { code: 'cancelled', message: 'The run was cancelled.', retryable: false };

test('An aborted run ends at once as failed with the given code, and tells nothing more', async (t) => {
  const { runner } = await createTestRunner(t);
  const { handle, seen, events } = watch(runner, inputOf('Add web search [[slow:1500]]', sampleFiles()));
  await seen(token);
  const told = events.length;
  handle.abort(cancelled);
  const outcome = await handle.done;
  t.equal(events.length, told, 'it does not wait for the next token');
  t.match(outcome, { status: 'failed', error: cancelled });
  t.ok('files' in outcome && outcome.files['/definition.json']);
  await pause(100);
  t.equal(events.length, told);
});

test('A stalled model is ended by an abort', async (t) => {
  const { runner } = await createTestRunner(t);
  const { handle, seen } = watch(runner, inputOf('[[stall]] Add web search'));
  await seen(({ data }) => data.content === ' stall');
  handle.abort({ code: 'stalled', message: 'Silent for too long.', retryable: true });
  t.match(await handle.done, { status: 'failed', error: { code: 'stalled', retryable: true } });
});

test('A run that is aborted before its agents are built is failed too', async (t) => {
  const { runner } = await createTestRunner(t);
  const { handle } = watch(runner, inputOf('Add web search'));
  handle.abort(cancelled);
  t.match(await handle.done, { status: 'failed', error: cancelled });
});

for (const [directive, retryable] of [
  ['[[fail:retryable]]', true],
  ['[[fail:fatal]]', false],
] as const) {
  test(`${directive} fails the run with the files that it had, retryable: ${retryable}`, async (t) => {
    const { runner } = await createTestRunner(t);
    const { done, events } = watch(runner, inputOf(`${directive} Add web search`, sampleFiles()));
    const outcome = await done;
    t.match(outcome, { status: 'failed', error: { code: 'scripted_failure', retryable } });
    t.same(Object.keys('files' in outcome ? outcome.files : {}).sort(), Object.keys(sampleFiles()).sort());
    t.ok(statesOf(events).length > 1);
  });
}

test('A drained run is interrupted at the next step, and resumes to the same files with its whole state first', async (t) => {
  const { runner } = await createTestRunner(t);
  const input = inputOf('Add web search', sampleFiles());
  const undisturbed = completedTexts(await watch(runner, input).done);

  const first = watch(runner, input);
  await first.seen(({ event_type, data }) => event_type === 'on_tool_end' && data.name === 'read_file');
  first.handle.drain();
  t.same(await first.done, { status: 'interrupted', reason: 'drained' });
  const stopped = statesOf(first.events).at(-1);

  const second = watch(runner, input, first.threadId, true);
  t.same(completedTexts(await second.done), undisturbed);
  t.equal(second.events[0]?.event_type, 'on_state_update');
  t.ok((statesOf(second.events)[0]?.messages.length ?? 0) >= (stopped?.messages.length ?? 99));
});

test('A run that is resumed without a checkpoint begins with what it was given', async (t) => {
  const { runner } = await createTestRunner(t);
  const { done, events } = watch(runner, inputOf('Add web search', sampleFiles()), 'never-started', true);
  t.match(completedTexts(await done)['/definition.json'], /web_search/);
  t.same(Object.keys(statesOf(events)[0]?.files ?? {}), Object.keys(sampleFiles()));
});

test('A finished run that is resumed completes at once with the same files', async (t) => {
  const { runner } = await createTestRunner(t);
  const input = inputOf('Add web search', sampleFiles());
  const first = watch(runner, input);
  const texts = completedTexts(await first.done);
  const second = watch(runner, input, first.threadId, true);
  t.same(completedTexts(await second.done), texts);
  t.notOk(second.events.some(token));
});

test('A sub-agent that cannot store its state interrupts the run, which resumes to the same files (rule 23)', async (t) => {
  const { runner, pool, schema } = await createTestRunner(t);
  const input = inputOf('Add web search capability to the GreetingAgent', sampleFiles());
  const undisturbed = completedTexts(await watch(runner, input).done);

  for (const broken of [1, 4, 7, 10]) {
    let writes = 0;
    const failing = new Proxy(pool, {
      get(target, name) {
        if (name !== 'query') return Reflect.get(target, name);
        return (statement: { text?: string; values?: unknown[] }, ...rest: unknown[]) => {
          // A sub-agent's name space holds the task that it works on.
          const ofSubAgent =
            /^\s*(WITH blobs|INSERT)/.test(statement.text ?? '') && /:/.test(String(statement.values?.[1]));
          if (ofSubAgent && ++writes === broken)
            return Promise.reject(new Error('Connection terminated unexpectedly'));
          return Reflect.apply(target.query, target, [statement, ...rest]);
        };
      },
    });
    const disturbed = createDeepAgentRunner({
      pool: failing,
      schema,
      model: { kind: 'scripted', chunkDelayMs: 0 },
    });
    const { done, threadId } = watch(disturbed, input);
    t.same(await done, { status: 'interrupted', reason: 'store_unavailable' }, `write ${broken}`);
    const resumed = watch(runner, input, threadId, true);
    t.same(completedTexts(await resumed.done), undisturbed, `write ${broken}`);
  }
});
