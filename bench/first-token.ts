/**
 * `npm run bench:first-token`: from POST …/refinements to the viewer's first token, through the real runtime with
 * its scripted model, which does not wait. One refinement after the other.
 */
import process from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { WebSocket } from 'ws';
import { type Api, createApi } from '../scripts/refine/api.js';
import { sampleWorkflow } from '../scripts/refine/sample-specification.js';
import { openHouse, startOrchestrator } from './house/house.js';
import { startScriptedRuntime } from './house/scripted-runtime.js';
import { createLatencies, type Summary } from './relaying/latencies.js';

const WARM_UP = 5;
const LONGEST_MS = 60_000;
const flags = new Command('npm run bench:first-token --')
  .option('--runs <n>', 'refinements', Number, 40)
  .option('--max-p50 <ms>', 'fail where the median is higher', Number)
  .parse()
  .opts<{ runs: number; maxP50?: number }>();

/** Milliseconds to the answer and to the first token; resolves when the run has ended, so that runs do not meet. */
async function once(
  api: Api,
  workflowId: string,
  url: string,
  token: string,
): Promise<{ answer: number; first: number }> {
  const from = performance.now();
  const started = await api.startRefinement(workflowId, { user_prompt: 'Add web search capability' });
  const answer = performance.now() - from;
  const address = new URL(started.websocket_url, url.replace('http', 'ws'));
  const socket = new WebSocket(address, {
    headers: { authorization: `Bearer ${token}` },
    perMessageDeflate: false,
  });
  let first: number | null = null;
  let ended = false;
  const over = new Promise<void>((resolve, reject) => {
    socket.on('message', (data: Buffer) => {
      const { event_type: kind } = JSON.parse(data.toString('utf8')) as { event_type: string };
      if (kind === 'on_llm_stream') first ??= performance.now() - from;
      ended ||= kind === 'end';
    });
    socket.on('error', reject);
    socket.on('close', (code) =>
      ended ? resolve() : reject(new Error(`closed with ${code} before the end`)),
    );
  });
  const late = new AbortController();
  const patience = wait(LONGEST_MS, undefined, { signal: late.signal }).then(
    () => Promise.reject(new Error('a run took too long')),
    () => undefined,
  );
  await Promise.race([over, patience]).finally(() => late.abort());
  if (first === null) throw new Error('a run ended without a token');
  return { answer, first };
}

async function main(): Promise<number> {
  const house = await openHouse();
  try {
    const runtime = await startScriptedRuntime(house, { chunkMs: 0 });
    const { url } = await startOrchestrator(house, { runtimeUrl: runtime.url });
    const token = await house.identity.token('bench', 3600);
    const api = createApi({ url, token });
    const workflow = await api.createWorkflow(sampleWorkflow);
    const answers = createLatencies();
    const tokens = createLatencies();
    for (let run = 0; run < WARM_UP + flags.runs; run++) {
      const { answer, first } = await once(api, workflow.id, url, token);
      if (run < WARM_UP) continue;
      answers.add(answer * 1000);
      tokens.add(first * 1000);
    }
    const told = (what: string, { p50, p99, max }: Summary) =>
      process.stdout.write(
        `${what} of ${flags.runs} runs, ms: p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, max ${max.toFixed(1)}\n`,
      );
    const none: Summary = { p50: Number.NaN, p99: Number.NaN, max: Number.NaN };
    told('answer to the request', answers.summary() ?? none);
    const first = tokens.summary() ?? none;
    told('first token', first);
    if (flags.maxP50 === undefined || first.p50 <= flags.maxP50) return 0;
    process.stdout.write(`FAILED p50 is over ${flags.maxP50} ms\n`);
    return 1;
  } finally {
    await house.stop();
  }
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  },
);
