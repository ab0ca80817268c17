import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, databaseUrl, inputOf, statesOf, watch } from './runner-harness.js';

const child = fileURLToPath(new URL('./kill-child.js', import.meta.url));

/** Kills the child with SIGKILL once it has told so many events. */
async function killedAfter(events: number, args: string[]): Promise<void> {
  const running = spawn(process.execPath, [child, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = new Promise((resolve) => running.once('exit', resolve));
  running.stdout.on('data', (data: Buffer) => {
    if (
      data
        .toString()
        .trim()
        .split('\n')
        .some((line) => Number(line) >= events)
    )
      running.kill('SIGKILL');
  });
  await gone;
}

test('A run whose process was killed at any moment resumes to exactly the same files', async (t) => {
  const { runner, schema } = await createTestRunner(t);
  const prompt = 'Add web search capability to the agent';
  const undisturbed = watch(runner, inputOf(prompt, sampleFiles()));
  const expected = completedTexts(await undisturbed.done);
  const messages = statesOf(undisturbed.events).at(-1)?.messages.length;
  for (const events of [1, 25, 60, 100, 130, 160]) {
    const threadId = randomUUID();
    await killedAfter(events, [databaseUrl(), schema, threadId, prompt]);
    const resumed = watch(runner, inputOf(prompt, sampleFiles()), threadId, true);
    t.same(completedTexts(await resumed.done), expected, `killed after ${events} events`);
    t.equal(statesOf(resumed.events).at(-1)?.messages.length, messages);
  }
});
