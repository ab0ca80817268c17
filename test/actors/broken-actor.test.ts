import { trace } from '@opentelemetry/api';
import { Observable, throwError } from 'rxjs';
import t from 'tap';
import { createThreadRegistry } from '../../src/actors/thread-registry.js';
import { loadConfig } from '../../src/config.js';
import { createFrameCounts } from '../../src/streams/frame-counts.js';
import { createWindowBudget } from '../../src/streams/replay-window.js';
import { createDeepAgentsRuntimeClient } from '../../src/streams/runtime-client.js';
import { createRuntimeFrames } from '../../src/streams/runtime-socket.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { createTestDatabase } from '../support/database.js';
import { createFakeTopics } from '../support/fake-viewer.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';

t.test(
  'an actor that broke is forgotten, its viewers come back, and it is revived from its row',
  async (t) => {
    const { pool } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    const config = loadConfig({ JWT_SECRET: 'x'.repeat(32) });
    const metrics = createMetrics({ processMetrics: false });
    const log = createLogger({ level: 'silent', production: true });
    const client = createDeepAgentsRuntimeClient({
      url: runtime.url,
      config: config.runtime,
      metrics,
      tracer: trace.getTracer('test'),
      log,
      random: Math.random,
    });
    const healthy = createRuntimeFrames({
      open: ({ threadId, position }) =>
        client.streamWebSocket({ threadId, after: position?.after ?? null, epoch: position?.epoch ?? null }),
      pingIntervalMs: 5_000,
      frameBytes: 1 << 20,
    });
    let breaks = true;
    const topics = createFakeTopics();
    let cleanUps = 0;
    const registry = createThreadRegistry({
      db: pool,
      client,
      // A fault of ours: the pipeline itself throws, not the run.
      runtimeFrames: {
        frames: (threadId, position) =>
          breaks
            ? throwError(() => new Error('a bug'))
            : new Observable((to) => healthy.frames(threadId, position).subscribe(to)),
      },
      publish: topics.publish,
      windowBudget: createWindowBudget(config.window),
      runtimeLog: { read: async () => ({ frames: [], rest: 'gone' }) },
      transcripts: { complete: async () => undefined },
      frameCounts: createFrameCounts(),
      config,
      metrics,
      log,
      node: 'node-1',
      random: Math.random,
      now: () => performance.now(),
      onCleanUpDue: () => void cleanUps++,
      sole: false,
    });
    t.teardown(async () => {
      await registry.stop();
      client.stop();
      await runtime.stop();
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
    await until(() => registry.counts().completed === 1, 8_000);
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
    t.equal(cleanUps, 0);
  },
);
