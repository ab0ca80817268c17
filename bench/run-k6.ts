/**
 * `npm run bench:k6`: k6 against the orchestrator in production mode: streams of the load runtime, then whole
 * refinements through the real one. Exit code 1 where a threshold failed. `npm run bench:k6 -- lifecycle` runs one.
 */
import process from 'node:process';
import { type House, openHouse, startOrchestrator } from './house/house.js';
import { findK6, runK6 } from './house/k6.js';
import { startPart } from './house/part.js';
import { startScriptedRuntime } from './house/scripted-runtime.js';

const TOKEN_SECONDS = 3600;
/** 40 threads of 20 frames a second with 3 viewers: 2,400 frames a second for 10 seconds. */
const streams = { THREADS: '40', VIEWERS: '3', FRAMES: '200' };
const streamRate = '20';

async function streaming(house: House, k6: string, TOKEN: string): Promise<number> {
  const load = startPart('load-runtime', { args: ['--frames', streams.FRAMES, '--rate', streamRate] });
  house.add(load.stop);
  const { port } = await load.next('listening');
  const orchestrator = await startOrchestrator(house, { runtimeUrl: `http://127.0.0.1:${port}` });
  const code = await runK6(k6, 'streaming', { BASE_URL: orchestrator.url, TOKEN, ...streams });
  await orchestrator.stop();
  await load.stop();
  return code;
}

async function lifecycle(house: House, k6: string, TOKEN: string): Promise<number> {
  const runtime = await startScriptedRuntime(house, { chunkMs: 5 });
  const orchestrator = await startOrchestrator(house, { runtimeUrl: runtime.url });
  return runK6(k6, 'lifecycle', { BASE_URL: orchestrator.url, TOKEN });
}

const scripts = { streaming, lifecycle };

async function main(): Promise<number> {
  const k6 = findK6();
  const wanted = process.argv.slice(2);
  const unknown = wanted.find((name) => !(name in scripts));
  if (unknown !== undefined) throw new Error(`There is no ${unknown}: ${Object.keys(scripts).join(' or ')}`);
  const house = await openHouse();
  try {
    const token = await house.identity.token('bench', TOKEN_SECONDS);
    let failed = 0;
    for (const [name, run] of Object.entries(scripts)) {
      if (wanted.length > 0 && !wanted.includes(name)) continue;
      process.stdout.write(`\n${name}\n`);
      const code = await run(house, k6, token);
      if (code !== 0) process.stdout.write(`FAILED ${name}: k6 ended with ${code}\n`);
      failed += code === 0 ? 0 : 1;
    }
    return failed === 0 ? 0 : 1;
  } finally {
    await house.stop();
  }
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
