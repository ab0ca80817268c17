import pg from 'pg';
import { createDeepAgentRunner } from '../../src/agent/deep-agent-runner.js';
import { sampleFiles } from '../models/sample-specification.js';
import { inputOf, watch } from './runner-harness.js';

/** Runs a thread until it is killed; says each state update. Arguments: URL, schema, thread, prompt. */
const [url, schema = '', threadId = '', prompt = ''] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url });
const runner = createDeepAgentRunner({ pool, schema, model: { kind: 'scripted', chunkDelayMs: 1 } });
const { events, done } = watch(runner, inputOf(prompt, sampleFiles()), threadId);
const said = setInterval(() => process.stdout.write(`${events.length}\n`), 5);
await done;
clearInterval(said);
await pool.end();
