import { setTimeout as wait } from 'node:timers/promises';
import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { createRegistry } from './support/registry.js';

t.test('an actor is not idle while a viewer is being let in, however long that takes', async (t) => {
  const { pool } = await createTestDatabase(t);
  const runtime = await createScriptedRuntime({ upgrade: () => ({ status: 503 }) });
  t.teardown(() => runtime.stop());
  let time = 0;
  const { registry, topics } = createRegistry(t, {
    pool,
    runtimeUrl: runtime.url,
    node: 'me',
    config: { runs: { idleActorMs: 1 } },
    now: () => time,
  });
  await pool.query(sql.type(z.object({}))`INSERT INTO nodes (id, name, beat) VALUES ('other', 'other', 1)`);
  const workflow = await seedWorkflow(pool);
  const ofAnother = async () => (await seedProposal(pool, workflow, { ownerNode: 'other' })).threadId;
  /** Time goes on in small steps until so many actors are left. */
  const untilLeft = async (count: number) => {
    for (let step = 0; step < 400 && registry.size() > count; step++) {
      time += 2;
      await wait(50);
    }
    t.equal(registry.size(), count);
  };
  // It knows a log that this replica has not heard of yet: that is waited for.
  const comes = topics.join();
  const attaching = registry.attach(await ofAnother(), comes, { epoch: '2.1' });
  const left = await registry.attach(await ofAnother(), topics.join(), {});
  left.detach();
  t.equal(registry.size(), 2);
  await registry.start();
  await untilLeft(1);
  t.equal(comes.closed, null, 'it is the other one that is gone');
  time += 5_000;
  await attaching;
  t.match(comes.closed, { code: 1013 }, 'it was let wait for as long as it may');
  await untilLeft(0);
});
