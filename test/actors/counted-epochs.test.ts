import t from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

t.test(
  'an epoch that a connection of an unnumbered run makes has a name that no order can be read from',
  async (t) => {
    const { pool } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    t.teardown(() => runtime.stop());
    runtime.script.invoke = ({ threadId }) => ({
      status: 200,
      body: { thread_id: threadId, status: 'started' },
    });
    runtime.script.state = ({ threadId }) => ({
      status: 200,
      body: { thread_id: threadId, status: 'running', result: null, generated_files: null },
    });
    const connections: (() => void)[] = [];
    runtime.script.stream = (socket) => {
      socket.send(JSON.stringify({ event_type: 'on_state_update', data: { files: {} } }));
      connections.push(() => socket.terminate());
    };
    const { registry, topics } = createRegistry(t, { pool, runtimeUrl: runtime.url, node: 'me' });
    const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'me' });
    await registry.startRun(row, null);
    const viewer = topics.join();
    await registry.attach(row.threadId, viewer, {});
    const resets = () => viewer.received.filter(({ event_type }) => event_type === 'on_reset');
    for (const count of [1, 2, 3]) {
      await until(
        () => viewer.received.at(-1)?.event_type === 'on_state_update' && connections.length === count,
        10_000,
      );
      if (count < 3) connections.at(-1)?.();
      await until(() => resets().length === Math.min(count, 2), 10_000);
    }
    t.equal(viewer.received[0]?.data.epoch, '1.1', 'the first one is the first everywhere');
    const names = resets().map(({ data }) => String(data.epoch));
    t.equal(names.length, 2);
    t.equal(new Set(names).size, 2);
    // With digits alone it would be taken for a log of the runtime’s that is later than any.
    for (const name of names) t.match(name, /^1\.r[0-9a-f]{8}$/);
  },
);
