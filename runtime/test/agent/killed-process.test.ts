import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, databaseUrl, inputOf, statesOf, watch } from './runner-harness.js';

const child = fileURLToPath(new URL('./kill-child.js', import.meta.url));

/** Runs the child until it has killed itself with SIGKILL; how many events each of its threads had told. */
async function killed(args: string[]): Promise<number[]> {
  const running = spawn(process.execPath, [child, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  running.stdout.on('data', (data: Buffer) => {
    said += data.toString();
  });
  const [code, signal] = await once(running, 'close');
  if (signal !== 'SIGKILL') throw new Error(`The process ended by itself with ${code}`);
  return JSON.parse(said) as number[];
}

test('A run whose process was killed at any moment resumes to exactly the same files', async (t) => {
  const { runner, schema } = await createTestRunner(t);
  const prompt = 'Add web search capability to the agent';
  const undisturbed = watch(runner, inputOf(prompt, sampleFiles()));
  const expected = completedTexts(await undisturbed.done);
  const messages = statesOf(undisturbed.events).at(-1)?.messages.length;

  // One kill for runs that stand at their end, in their middle and at their beginning.
  const threads = [0, 60, 110, 149].map((begunAt) => ({ threadId: randomUUID(), begunAt }));
  const told = await killed([
    databaseUrl(),
    schema,
    prompt,
    '150',
    ...threads.map(({ threadId, begunAt }) => `${threadId}:${begunAt}`),
  ]);
  t.ok((told[0] ?? 0) < undisturbed.events.length, 'no run had ended');
  for (const [at, { threadId }] of threads.entries()) {
    const resumed = watch(runner, inputOf(prompt, sampleFiles()), threadId, true);
    t.same(completedTexts(await resumed.done), expected, `killed after ${told[at]} events`);
    t.equal(statesOf(resumed.events).at(-1)?.messages.length, messages);
  }
});
