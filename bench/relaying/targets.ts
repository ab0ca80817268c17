import { randomUUID } from 'node:crypto';
import { createApi } from '../../scripts/refine/api.js';
import { sampleWorkflow } from '../../scripts/refine/sample-specification.js';
import type { House, Orchestrator } from '../house/house.js';
import type { RelayOrder } from '../house/messages.js';
import type { Part } from '../house/part.js';

/** A process that relays: begins runs at the load runtime and serves viewers of them. */
export interface Target {
  name: 'orchestrator' | 'relay';
  pid: number;
  port: number;
  headers: Record<string, string>;
  greeted: boolean;
  /** Begins so many runs and reads their streams; names them, and where viewers find them, in the same order. */
  begin(count: number): Promise<{ threads: string[]; paths: string[] }>;
}

const AT_ONCE = 16;

/** Does `work` so many times, a few at once; results in order. */
async function manyTimes<T>(count: number, work: (index: number) => Promise<T>): Promise<T[]> {
  const results = new Array<T>(count);
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const index = next++;
      results[index] = await work(index);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return results;
}

export async function orchestratorTarget(house: House, orchestrator: Orchestrator): Promise<Target> {
  const token = await house.identity.token('bench', 3600);
  const api = createApi({ url: orchestrator.url, token });
  // Starts on one workflow wait for each other's lock; a few workflows are nearer to life.
  const workflows = await manyTimes(10, () => api.createWorkflow(sampleWorkflow));
  return {
    name: 'orchestrator',
    pid: orchestrator.pid,
    port: orchestrator.port,
    headers: { Authorization: `Bearer ${token}` },
    greeted: true,
    async begin(count) {
      const begun = await manyTimes(count, (index) => {
        const workflow = workflows[index % workflows.length];
        return api.startRefinement(workflow?.id ?? '', { user_prompt: `Load ${index}` });
      });
      // The public thread id is the first attempt's job id, which the load runtime takes for its own.
      return {
        threads: begun.map(({ thread_id }) => thread_id),
        paths: begun.map(({ websocket_url }) => websocket_url),
      };
    },
  };
}

export function relayTarget(relay: Part<RelayOrder>, port: number, runtimePort: number): Target {
  const invoke = async (jobId: string): Promise<string> => {
    const input_payload = { messages: [{ role: 'user', content: 'Load' }] };
    const answer = await fetch(`http://127.0.0.1:${runtimePort}/deepagents-runtime/invoke`, {
      method: 'POST',
      body: JSON.stringify({ trace_id: jobId, job_id: jobId, agent_definition: {}, input_payload }),
    });
    if (answer.status !== 200) throw new Error(`invoke was answered with ${answer.status}`);
    await answer.body?.cancel();
    return jobId;
  };
  return {
    name: 'relay',
    pid: relay.pid,
    port,
    headers: {},
    greeted: false,
    async begin(count) {
      const threads = await manyTimes(count, () => invoke(randomUUID()));
      const opened = relay.next('opened');
      relay.tell({ type: 'open', runtimePort, threads });
      await opened;
      return { threads, paths: threads.map((id) => `/viewers/${id}`) };
    },
  };
}
