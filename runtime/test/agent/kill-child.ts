import { writeSync } from 'node:fs';
import pg from 'pg';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import type { AgentRunner } from '../../src/agent-runner.js';
import { sampleFiles } from '../models/sample-specification.js';
import { inputOf, type Watched, watch } from './runner-harness.js';

/**
 * Runs several threads until it kills itself, each begun when the first had told so many events: one kill
 * meets each at a moment of its own. Says how many each has told when the first has told `until`, and is gone with that
 * word. Arguments: URL, schema, prompt, until, and `thread:begun-at` for each.
 */
const [url, schema = '', prompt = '', until, ...threads] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url });
const real = createDeepAgentRunner({ pool, schema, model: { kind: 'scripted', chunkDelayMs: 1 } });
const waiting = threads.map((thread) => {
  const [threadId = '', begunAt] = thread.split(':');
  return { threadId, begunAt: Number(begunAt) };
});
const runs: Watched[] = [];

/** At each event, so that a process that is late for a timer misses no moment. */
function look(): void {
  const told = runs[0]?.events.length ?? 0;
  while (waiting[0] !== undefined && waiting[0].begunAt <= told) {
    const { threadId } = waiting.shift() ?? {};
    runs.push(watch(runner, inputOf(prompt, sampleFiles()), threadId));
  }
  if (told < Number(until)) return;
  writeSync(1, JSON.stringify(runs.map(({ events }) => events.length)));
  process.kill(process.pid, 'SIGKILL');
}

const runner: AgentRunner = {
  ...real,
  run: (threadId, input, onEvent, options) =>
    real.run(
      threadId,
      input,
      (event) => {
        onEvent(event);
        look();
      },
      options,
    ),
};
look();
