/**
 * `npm run bench:runtime`: CPU per token event of the runtime and the orchestrator together, against the agent
 * library alone (same model, team and work, checkpoints in PostgreSQL). In turn, one refinement after the other.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { WebSocket } from 'ws';
import { type Api, createApi } from '../scripts/refine/api.js';
import { sampleWorkflow } from '../scripts/refine/sample-specification.js';
import { findFreePort } from '../src/embedded/free-port.js';
import { cpuTimeOf } from './house/cost.js';
import { type House, openHouse, startOrchestrator } from './house/house.js';

const runtimeDir = fileURLToPath(new URL('../../runtime/dist/', import.meta.url));
const prompt = 'Add web search capability';
const flags = new Command('npm run bench:runtime --')
  .option('--rounds <n>', 'rounds, each of both sides', Number, 5)
  .option('--runs <n>', 'runs of each side in a round', Number, 10)
  .option('--warm-up <n>', 'runs of each side before the first round', Number, 20)
  .option('--max-ratio <x>', 'fail where the median is higher', Number)
  .parse()
  .opts<{ rounds: number; runs: number; warmUp: number; maxRatio?: number }>();

const cpuMs = (pid: number): number => {
  const { user, system } = cpuTimeOf(pid);
  return (user + system) * 1000;
};
const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

function stopWith(house: House, child: ChildProcess): void {
  house.add(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await exited;
  });
}

async function startRuntime(house: House): Promise<{ pid: number; url: string }> {
  const port = await findFreePort();
  const child = spawn(process.execPath, [path.join(runtimeDir, 'src/main.js')], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {
      RUNTIME_DATABASE_URL: house.postgres.url('deepagents_runtime'),
      RUNTIME_PORT: String(port),
      NODE_ENV: 'production',
      SCRIPTED_CHUNK_MS: '0',
      LOG_LEVEL: 'warn',
    },
  });
  stopWith(house, child);
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    const answer = await fetch(`${url}/ready`).catch(() => null);
    await answer?.body?.cancel();
    if (answer?.status === 200) return { pid: child.pid ?? 0, url };
    if (child.exitCode !== null) throw new Error('The runtime did not start');
    await wait(50);
  }
}

/** The library's process: tokens and milliseconds of CPU of so many runs. */
async function startLibrary(
  house: House,
): Promise<(runs: number) => Promise<{ tokens: number; cpuMs: number }>> {
  const child = fork(path.join(runtimeDir, 'bench/library-alone.js'), [
    house.postgres.url('deepagents_runtime'),
  ]);
  stopWith(house, child);
  const next = async (): Promise<unknown> => {
    const late = new AbortController();
    const ended = once(child, 'exit', { signal: late.signal }).then(() => {
      throw new Error('The library’s process ended');
    });
    ended.catch(() => undefined);
    const [news] = await Promise.race([once(child, 'message', { signal: late.signal }), ended]);
    late.abort();
    return news;
  };
  await next();
  const files = Object.fromEntries(
    Object.entries(sampleWorkflow.files).map(([name, text]) => [name, { content: text.split('\n') }]),
  );
  return async (runs) => {
    const answer = next();
    child.send({ runs, prompt, files });
    return (await answer) as { tokens: number; cpuMs: number };
  };
}

/** Token events that the viewer of one refinement gets. */
async function refine(api: Api, workflowId: string, url: string, token: string): Promise<number> {
  const started = await api.startRefinement(workflowId, { user_prompt: prompt });
  const socket = new WebSocket(new URL(started.websocket_url, url.replace('http', 'ws')), {
    headers: { authorization: `Bearer ${token}` },
    perMessageDeflate: false,
  });
  let tokens = 0;
  let ended = false;
  socket.on('message', (data: Buffer) => {
    const { event_type: kind } = JSON.parse(data.toString('utf8')) as { event_type: string };
    if (kind === 'on_llm_stream') tokens += 1;
    ended ||= kind === 'end';
  });
  const [code] = await once(socket, 'close', { signal: AbortSignal.timeout(60_000) });
  if (!ended) throw new Error(`closed with ${code} before the end`);
  return tokens;
}

async function main(): Promise<number> {
  const house = await openHouse();
  try {
    const library = await startLibrary(house);
    const runtime = await startRuntime(house);
    const orchestrator = await startOrchestrator(house, { runtimeUrl: runtime.url });
    const token = await house.identity.token('bench', 3600);
    const api = createApi({ url: orchestrator.url, token });
    const workflow = await api.createWorkflow(sampleWorkflow);
    const refinements = async (runs: number) => {
      const before = [cpuMs(runtime.pid), cpuMs(orchestrator.pid)] as const;
      let tokens = 0;
      for (let run = 0; run < runs; run++) tokens += await refine(api, workflow.id, orchestrator.url, token);
      return {
        tokens,
        runtime: cpuMs(runtime.pid) - before[0],
        orchestrator: cpuMs(orchestrator.pid) - before[1],
      };
    };
    await library(flags.warmUp);
    await refinements(flags.warmUp);
    const rounds: { library: number; runtime: number; orchestrator: number; ratio: number }[] = [];
    for (let round = 0; round < flags.rounds; round++) {
      const alone = await library(flags.runs);
      const ours = await refinements(flags.runs);
      const each = {
        library: alone.cpuMs / alone.tokens,
        runtime: ours.runtime / ours.tokens,
        orchestrator: ours.orchestrator / ours.tokens,
      };
      rounds.push({ ...each, ratio: (each.runtime + each.orchestrator) / each.library });
      process.stdout.write(
        `round ${round + 1}, µs of CPU per token event: library alone ${micro(each.library)}` +
          ` (${alone.tokens / flags.runs} a run) | runtime ${micro(each.runtime)} + orchestrator` +
          ` ${micro(each.orchestrator)} (${ours.tokens / flags.runs} a run)\n`,
      );
    }
    const ratio = median(rounds.map((round) => round.ratio));
    process.stdout.write(`both together: ${ratio.toFixed(2)} x the library alone (median)\n`);
    if (flags.maxRatio === undefined || ratio <= flags.maxRatio) return 0;
    process.stdout.write(`FAILED the ratio is over ${flags.maxRatio}\n`);
    return 1;
  } finally {
    await house.stop();
  }
}

const micro = (milliseconds: number): string => (milliseconds * 1000).toFixed(0);

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  },
);
