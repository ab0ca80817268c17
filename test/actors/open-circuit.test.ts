import t from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

t.test(
  'threads that wait for the runtime go on when the circuit closes, whatever back-off is left',
  async (t) => {
    const { pool } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    t.teardown(() => runtime.stop());
    runtime.script.invoke = () => ({ status: 503 });
    runtime.script.stream = (socket) =>
      socket.send(JSON.stringify({ seq: 1, event_type: 'on_llm_stream', data: { content: 'a' } }));
    const hour = 3_600_000;
    const { registry, client } = createRegistry(t, {
      pool,
      runtimeUrl: runtime.url,
      node: 'me',
      config: {
        runs: { reconnectBaseMs: hour, reconnectMaxMs: hour },
        runtime: { invokeDeadlineMs: 1_000, callDeadlineMs: 1_000, handshakeTimeoutMs: 1_000 },
      },
      circuitOpenMs: 1,
    });
    const workflow = await seedWorkflow(pool);
    const threads = 6;
    for (let each = 0; each < threads; each++)
      await seedProposal(pool, workflow, { ownerNode: 'me', totalDeadlineMs: hour });
    runtime.script.ready = () => ({ status: 503 });
    await registry.start();
    await runtime.untilRequest('ready');
    await until(() => registry.counts().invoking === threads, 30_000);
    t.strictSame(registry.counts(), { invoking: threads });
    t.not(client.circuit.state(), 'closed');
    runtime.script.invoke = ({ threadId }) => ({
      status: 200,
      body: { thread_id: threadId, status: 'started' },
    });
    delete runtime.script.ready;
    await until(() => registry.counts().streaming === threads, 30_000);
    t.strictSame(registry.counts(), { streaming: threads });
  },
);
