/**
 * `npm run chaos`: breaks every part of the system again and again while people refine, and looks whether anything was
 * lost, doubled or told wrongly. Exit code 1 on any breach. Loopback only.
 */
import process from 'node:process';
import { Command, InvalidArgumentError } from 'commander';
import { runCampaign } from './campaign.js';

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('A number above 0 is needed.');
  return value;
}

const { seconds, seed, inFlight } = new Command('npm run chaos --')
  .option('--seconds <n>', 'how long things break; healing and judging come after it', positive, 120)
  .option('--seed <text>', 'makes the plan of faults; a random one where it is not given')
  .option('--in-flight <n>', 'refinements under way at any time', positive, 50)
  .parse()
  .opts<{ seconds: number; seed?: string; inFlight: number }>();

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => stop.abort(new Error(name)));
}
// A fault of ours must not leave the parts running either.
process.on('uncaughtException', (error) => {
  process.stderr.write(`${error.stack}\n`);
  stop.abort(error);
});

const passed = await runCampaign({
  seed: seed ?? String(Math.floor(Math.random() * 2 ** 32)),
  seconds,
  inFlight,
  say: (line) => process.stdout.write(`${line}\n`),
  signal: stop.signal,
}).catch((error: unknown) => {
  // Told to stop, it has nothing to explain.
  if (stop.signal.aborted) process.stderr.write(`stopped: ${String(stop.signal.reason)}\n`);
  else process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  return false;
});
process.exit(passed ? 0 : 1);
