import { randomUUID } from 'node:crypto';
import pg from 'pg';
import type { Test } from 'tap';
import { setupCheckpoints } from '../../src/agent/checkpoints.js';
import { createDeepAgentRunner, type DeepAgentRunnerDeps } from '../../src/agent/deep-agent-runner.js';
import type {
  AgentRunner,
  RunEvent,
  RunHandle,
  RunInput,
  RunOutcome,
  WireFiles,
} from '../../src/agent-runner.js';

/** The server of the test suite. */
export function databaseUrl(): string {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error('TEST_DATABASE_URL names the PostgreSQL of the tests.');
  return url;
}

/** A pool on a schema of its own with the checkpoint tables; both are gone after the test. */
export async function createStore(t: Test): Promise<{ pool: pg.Pool; schema: string }> {
  const schema = `agent_${randomUUID().replaceAll('-', '')}`;
  const pool = new pg.Pool({ connectionString: databaseUrl(), max: 10 });
  pool.on('error', () => {});
  await setupCheckpoints(pool, schema);
  t.teardown(async () => {
    await pool.query(`DROP SCHEMA ${schema} CASCADE`);
    await pool.end();
  });
  return { pool, schema };
}

/** A runner with the scripted model at full speed, unless told otherwise. */
export async function createTestRunner(
  t: Test,
  deps: Partial<DeepAgentRunnerDeps> = {},
): Promise<{ runner: AgentRunner; pool: pg.Pool; schema: string }> {
  const store = await createStore(t);
  const runner = createDeepAgentRunner({ ...store, model: { kind: 'scripted', chunkDelayMs: 0 }, ...deps });
  return { runner, ...store };
}

/** What invoke is given for a prompt and files of text. */
export function inputOf(
  prompt: string,
  files: Record<string, string> = {},
  agent_definition: Record<string, unknown> = {},
): RunInput {
  const wire = Object.entries(files).map(([path, text]) => [path, { content: text.split('\n') }]);
  return {
    agent_definition,
    input_payload: { messages: [{ role: 'user', content: prompt }], files: Object.fromEntries(wire) },
  };
}

export interface Watched {
  threadId: string;
  events: RunEvent[];
  handle: RunHandle;
  done: Promise<RunOutcome>;
  /** Resolves with the first event that fits, past or to come. */
  seen(fits: (event: RunEvent) => boolean): Promise<RunEvent>;
}

/** Starts a run and keeps its events. */
export function watch(
  runner: AgentRunner,
  input: RunInput,
  threadId: string = randomUUID(),
  resumed = false,
): Watched {
  const events: RunEvent[] = [];
  const waiting = new Set<(event: RunEvent) => void>();
  const handle = runner.run(
    threadId,
    input,
    (event) => {
      events.push(event);
      for (const tell of waiting) tell(event);
    },
    { resumed },
  );
  const seen = (fits: (event: RunEvent) => boolean) =>
    new Promise<RunEvent>((resolve, reject) => {
      const past = events.find(fits);
      if (past) resolve(past);
      waiting.add((event) => fits(event) && resolve(event));
      void handle.done.then((outcome) =>
        reject(new Error(`The run ended first: ${JSON.stringify(outcome)}`)),
      );
    });
  return { threadId, events, handle, done: handle.done, seen };
}

/** The texts of the files; null = deleted. */
export function textsOf(files: WireFiles): Record<string, string | null> {
  return Object.fromEntries(
    Object.entries(files)
      .map(([path, file]): [string, string | null] => [path, file === null ? null : file.content.join('\n')])
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** The files of an outcome that must be a completed one. */
export function completedTexts(outcome: RunOutcome): Record<string, string | null> {
  if (outcome.status !== 'completed')
    throw new Error(`The run has not completed: ${JSON.stringify(outcome)}`);
  return textsOf(outcome.files);
}

interface StateMessage {
  type: string;
  id?: string;
  content: string;
}

/** The state updates of a run, in order. */
export function statesOf(events: readonly RunEvent[]) {
  return events
    .filter(({ event_type }) => event_type === 'on_state_update')
    .map(({ data }) => data as { files: WireFiles; todos: { status: string }[]; messages: StateMessage[] });
}
