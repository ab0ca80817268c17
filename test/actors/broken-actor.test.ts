import { Observable, throwError } from 'rxjs';
import t from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

t.test(
  'an actor that broke is forgotten, its viewers come back, and it is revived from its row',
  async (t) => {
    const { pool } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    t.teardown(() => runtime.stop());
    let breaks = true;
    const { registry, topics, cleanUps } = createRegistry(t, {
      pool,
      runtimeUrl: runtime.url,
      node: 'node-1',
      // A fault of ours: the pipeline itself throws, not the run.
      frames: (healthy) => ({
        frames: (threadId, position) =>
          breaks
            ? throwError(() => new Error('a bug'))
            : new Observable((to) => healthy.frames(threadId, position).subscribe(to)),
      }),
    });
    const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'node-1' });
    const viewer = topics.join();
    // The stored input of the seed is no whole job; the scripted runtime is told to take it.
    runtime.script.invoke = () => ({ status: 200, body: { thread_id: row.jobId, status: 'started' } });
    runtime.script.stream = (socket) => {
      const frames = [
        { seq: 1, event_type: 'on_state_update', data: { files: { '/a.md': { content: ['two'] } } } },
        { seq: 2, event_type: 'end', data: {} },
      ];
      for (const frame of frames) socket.send(JSON.stringify(frame));
      socket.close(1000);
    };
    const attaching = registry.attach(row.threadId, viewer, { after: 1 });
    await attaching;
    t.equal(viewer.closed?.code, 1012);
    t.equal(registry.size(), 0);
    t.strictSame(registry.counts(), {});
    t.equal(registry.runtimeRetryAfterSeconds(), null);
    breaks = false;
    await registry.start();
    await until(() => registry.counts().completed === 1);
    t.strictSame(registry.counts(), { completed: 1 });
    const again = topics.join();
    await registry.attach(row.threadId, again, {});
    t.strictSame(
      again.received.map(({ event_type }) => event_type),
      ['on_subscribed', 'on_state_update', 'end'],
    );
    await t.rejects(registry.attach('00000000-0000-4000-8000-000000000000', topics.join(), {}), {
      code: 'not_found',
    });
    await registry.stop();
    await t.rejects(registry.attach(row.threadId, topics.join(), {}), { code: 'shutting_down' });
    t.equal(await registry.startRun(row, null), 'unknown', 'a replica that stops begins nothing');
    t.equal(cleanUps.due, 0);
  },
);
