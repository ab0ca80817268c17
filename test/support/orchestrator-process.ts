import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

interface Owner {
  teardown(handler: () => Promise<void>): void;
}

export interface OrchestratorProcess {
  url: string;
  child: ChildProcess;
  logs: Record<string, unknown>[];
  kill(signal: NodeJS.Signals): Promise<{ code: number | null }>;
}

const entry = fileURLToPath(new URL('../../src/main.js', import.meta.url));

/** `node dist/src/main.js` on servers that are named, as in production but with a secret of the test's. */
export async function startOrchestrator(
  owner: Owner,
  env: { databaseUrl: string; runtimeUrl: string; secret: string } & { more?: Record<string, string> },
): Promise<OrchestratorProcess> {
  const { NODE_V8_COVERAGE: coverage, NODE_OPTIONS: options } = process.env;
  const child = spawn(process.execPath, ['--enable-source-maps', entry], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env.PATH,
      ...(coverage === undefined ? {} : { NODE_V8_COVERAGE: coverage }),
      ...(options === undefined ? {} : { NODE_OPTIONS: options }),
      DATABASE_URL: env.databaseUrl,
      DEEPAGENTS_RUNTIME_URL: env.runtimeUrl,
      JWT_SECRET: env.secret,
      PORT: '0',
      METRICS_PORT: '0',
      ...env.more,
    },
  });
  const reading = createInterface({ input: child.stdout });
  // Not `exit` alone: what it said last may still be on its way.
  const ended = Promise.all([once(child, 'close'), once(reading, 'close')]);
  createInterface({ input: child.stderr }).on('line', (line) => {
    // Once for each upgrade; operations.md says why it is no failure.
    if (!line.startsWith('Warning: uWS.HttpResponse writes')) process.stderr.write(`${line}\n`);
  });
  const logs: Record<string, unknown>[] = [];
  const port = await new Promise<number>((resolve, reject) => {
    reading.on('line', (line) => {
      if (!line.startsWith('{')) return;
      // One that is killed may be in the middle of a line.
      if (child.killed && !line.endsWith('}')) return;
      const fields = JSON.parse(line) as Record<string, unknown>;
      logs.push(fields);
      if (fields.msg === 'ready') resolve(fields.port as number);
    });
    child.once('exit', (code) =>
      reject(new Error(`the orchestrator ended with ${code} before it was ready`)),
    );
  });
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await ended;
    return { code: child.exitCode };
  };
  owner.teardown(async () => void (await kill('SIGKILL')));
  return { url: `http://127.0.0.1:${port}`, child, logs, kill };
}
