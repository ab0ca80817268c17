/**
 * The agent library by itself, as its documentation shows it, for `npm run bench:runtime`: the same team, model
 * and work as the runtime's, checkpoints in PostgreSQL, nothing around it. Told by its parent how many runs to make.
 */
import '../src/agent/library-settings.js';
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres';
import { createDeepAgent } from 'deepagents';
import { todoListMiddleware } from 'langchain';
import { teamOf } from '../src/agent/agent-definition.js';
import { graphInputOf } from '../src/agent/run-input.js';
import { createModelSource } from '../src/models/chat-models.js';

interface Order {
  runs: number;
  prompt: string;
  files: Record<string, { content: string[] }>;
}

interface Chunk {
  getType(): string;
  text: string;
  tool_call_chunks?: unknown[];
}

const [databaseUrl] = process.argv.slice(2);
if (databaseUrl === undefined) throw new Error('The address of the database is missing');
const checkpointer = PostgresSaver.fromConnString(databaseUrl, { schema: 'library_alone' });
await checkpointer.setup();
const model = await createModelSource({ kind: 'scripted', chunkDelayMs: 0 })(null);
const { main, specialists } = teamOf({});

async function tokensOfRun({ prompt, files }: Order): Promise<number> {
  const agent = createDeepAgent({
    name: main.slug,
    model,
    systemPrompt: main.systemPrompt,
    subagents: specialists.map(({ slug, description, systemPrompt }) => ({
      name: slug,
      description,
      systemPrompt,
      model,
    })),
    middleware: [todoListMiddleware()] as never,
    checkpointer,
  });
  const input = graphInputOf(
    { agent_definition: {}, input_payload: { messages: [{ role: 'user', content: prompt }], files } },
    new Date().toISOString(),
  );
  const items = await agent.stream(
    input as never,
    {
      configurable: { thread_id: randomUUID() },
      streamMode: ['messages', 'values'],
      subgraphs: true,
    } as never,
  );
  let tokens = 0;
  for await (const [, mode, data] of items as AsyncIterable<[string[], string, [Chunk]]>) {
    if (mode !== 'messages' || data[0].getType() !== 'ai') continue;
    // What the runtime counts: chunks that say something.
    if (data[0].text !== '' || (data[0].tool_call_chunks ?? []).length > 0) tokens += 1;
  }
  return tokens;
}

process.on('message', (order: Order) => {
  const work = async (): Promise<void> => {
    const before = process.cpuUsage();
    let tokens = 0;
    for (let run = 0; run < order.runs; run++) tokens += await tokensOfRun(order);
    const { user, system } = process.cpuUsage(before);
    process.send?.({ tokens, cpuMs: (user + system) / 1000 });
  };
  work().catch((thrown: unknown) => {
    process.stderr.write(`${String(thrown)}\n`);
    process.exit(1);
  });
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');
