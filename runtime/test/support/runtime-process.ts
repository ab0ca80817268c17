import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createRuntimeClient, type RuntimeClient } from './test-runtime.js';

const main = fileURLToPath(new URL('../../src/main.js', import.meta.url));

export interface RuntimeProcess extends RuntimeClient {
  child: ChildProcess;
  /** What it logged, parsed. */
  lines: Record<string, unknown>[];
  /** Ends it with a signal and resolves with its exit code; null where the signal ended it. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null>;
}

/** The real process with its real agents, on a free port; resolves when it is ready. */
export async function startRuntimeProcess(
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<RuntimeProcess> {
  const child = spawn(process.execPath, [main], {
    // Built, not inherited: what the tests' own environment holds is none of its business.
    env: { RUNTIME_DATABASE_URL: databaseUrl, RUNTIME_PORT: '0', SCRIPTED_CHUNK_MS: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Not `exit`: what it said last may still be on its way.
  const exited = once(child, 'close');
  const lines: Record<string, unknown>[] = [];
  let complaint = '';
  child.stderr.on('data', (data) => {
    complaint += String(data);
  });
  const reading = createInterface({ input: child.stdout });
  const read = once(reading, 'close');
  const port = await new Promise<number>((resolve, reject) => {
    reading.on('line', (line) => {
      // One that is killed may be in the middle of a line.
      if (child.killed && !line.endsWith('}')) return;
      const fields = JSON.parse(line) as Record<string, unknown>;
      lines.push(fields);
      if (fields.msg === 'ready') resolve(fields.port as number);
    });
    // Not at its exit: what it complained of may still be on its way.
    void exited.then(() => reject(new Error(`the runtime did not start: ${complaint}`)));
  });
  return {
    ...createRuntimeClient(`http://127.0.0.1:${port}`),
    child,
    lines,
    async end(signal) {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      // The process may be gone before its last lines are read.
      const [[code]] = await Promise.all([exited, read]);
      return code as number | null;
    },
  };
}
