import './library-settings.js';
import { MemorySaver, RunControl } from '@langchain/langgraph';

import { ScriptedModel } from '../models/scripted/scripted-model.js';
import { teamOf } from './agent-definition.js';
import { buildAgent } from './build-agent.js';
import { createReaderInboxes } from './reader-inbox.js';
import { runEventOf } from './run-events.js';
import { graphInputOf } from './run-input.js';
import { createStateView } from './state-view.js';

const definition = '{"name":"Warm-up","version":"1.0.0","nodes":[],"edges":[],"tool_definitions":[]}';

/**
 * Plays one short run in memory, so that the first real one does not pay for compiling the packages'
 * code: it was measured to take ten times as long as the later ones to its first token. Touches neither
 * PostgreSQL nor a model's provider. Never rejects: a process that is not warm is only slower.
 *
 * @param longestMs after which it is left, so that a busy machine's start is not held up
 */
export async function warmUpAgents(longestMs: number): Promise<void> {
  try {
    const model = new ScriptedModel({ chunkDelayMs: 0 });
    const agent = await buildAgent(teamOf({}), {
      modelFor: async () => model,
      tools: {},
      checkpointer: new MemorySaver(),
      inbox: createReaderInboxes().middleware,
    });
    const input = graphInputOf(
      {
        agent_definition: {},
        input_payload: {
          messages: [{ role: 'user', content: 'Add web search capability to the agent' }],
          files: { '/definition.json': { content: [definition] } },
        },
      },
      new Date(0).toISOString(),
    );
    const items = await agent.stream(input, {
      configurable: { thread_id: 'warm-up' },
      streamMode: ['messages', 'values', 'custom'],
      subgraphs: true,
      signal: AbortSignal.timeout(longestMs),
      control: new RunControl(),
      recursionLimit: 100,
    });
    const view = createStateView([]);
    for await (const item of items) JSON.stringify(runEventOf(item, view, new Map()));
  } catch {
    // Too slow, or it failed: then the first run says so, where somebody hears it.
  }
}
