import path from 'node:path';
import process from 'node:process';
import { type RuntimeProcess, startRuntimeProcess } from '../../src/embedded/runtime-process.js';
import { benchDir, type House } from './house.js';

/** The real runtime with its scripted model, which waits `chunkMs` before each token. */
export async function startScriptedRuntime(
  house: House,
  options: { chunkMs: number },
): Promise<RuntimeProcess> {
  const runtime = await startRuntimeProcess({
    databaseUrl: house.postgres.url('deepagents_runtime'),
    model: 'scripted',
    dataDir: path.join(benchDir, 'runtime'),
    log: house.log,
    env: {
      PATH: process.env.PATH ?? '',
      NODE_ENV: 'production',
      SCRIPTED_CHUNK_MS: String(options.chunkMs),
      LOG_LEVEL: 'warn',
    },
  });
  house.add(runtime.stop);
  return runtime;
}
