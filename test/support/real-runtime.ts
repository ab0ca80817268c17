import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { runtimeEnvironmentOf, startRuntimeProcess } from '../../src/embedded/runtime-process.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { createEmptyDatabase } from './database.js';

interface Owner {
  teardown(handler: () => Promise<void>): void;
}

export interface RealRuntime {
  url: string;
  databaseUrl: string;
  /** `kill -9`; it is started again at the same address by its keeper. */
  kill(): Promise<void>;
}

/** The deepagents-runtime as a process of its own, with the scripted model and a database of its own. */
export async function createRealRuntime(owner: Owner, chunkMs = 0): Promise<RealRuntime> {
  const { url: databaseUrl } = await createEmptyDatabase(owner);
  const dataDir = await mkdtemp(path.join(tmpdir(), 'runtime-'));
  const runtime = await startRuntimeProcess({
    databaseUrl,
    model: 'scripted',
    dataDir,
    log: createLogger({ level: 'silent', production: false }),
    env: { ...runtimeEnvironmentOf(process.env), SCRIPTED_CHUNK_MS: String(chunkMs), LOG_LEVEL: 'warn' },
  });
  owner.teardown(async () => {
    await runtime.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  return {
    url: runtime.url,
    databaseUrl,
    async kill() {
      const note = JSON.parse(await readFile(path.join(dataDir, 'runtime.json'), 'utf8')) as { pid: number };
      process.kill(note.pid, 'SIGKILL');
    },
  };
}
