import pg from 'pg';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import { sampleFiles } from '../models/sample-specification.js';
import { inputOf, type Watched, watch } from './runner-harness.js';

/**
 * Runs several threads until it is killed, each begun when the first had told so many events: one kill
 * meets each at a moment of its own. Says how many each has told when the first has told `until`. Arguments: URL, schema, prompt, until, and `thread:begun-at` for each.
 */
const [url, schema = '', prompt = '', until, ...threads] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url });
const runner = createDeepAgentRunner({ pool, schema, model: { kind: 'scripted', chunkDelayMs: 1 } });
const waiting = threads.map((thread) => {
  const [threadId = '', begunAt] = thread.split(':');
  return { threadId, begunAt: Number(begunAt) };
});
const runs: Watched[] = [];
const look = setInterval(() => {
  const told = runs[0]?.events.length ?? 0;
  while (waiting[0] !== undefined && waiting[0].begunAt <= told) {
    runs.push(watch(runner, inputOf(prompt, sampleFiles()), waiting.shift()?.threadId));
  }
  if (told < Number(until) || waiting.length > 0) return;
  clearInterval(look);
  process.stdout.write(`${JSON.stringify(runs.map(({ events }) => events.length))}\n`);
}, 2);
