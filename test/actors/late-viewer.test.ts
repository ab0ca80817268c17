import type { CommonQueryMethods } from 'slonik';
import t, { type Test } from 'tap';
import { grantViewer, revokeViewer } from '../../src/db/access.js';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

/** A thread of ada's that a viewer was granted, so that its access version is 2; `before` runs once before a statement. */
async function createHouse(t: Test) {
  const { pool } = await createTestDatabase(t);
  const runtime = await createScriptedRuntime();
  t.teardown(() => runtime.stop());
  let hooked: { statement: string; hook: () => Promise<unknown> } | null = null;
  const db = new Proxy(pool, {
    get(target, name: keyof CommonQueryMethods) {
      if (name !== 'maybeOne') return target[name];
      return async (token: { sql: string }) => {
        const found = hooked;
        if (found !== null && token.sql.includes(`/* ${found.statement} */`)) {
          hooked = null;
          await found.hook();
        }
        return target.maybeOne(token as Parameters<typeof target.maybeOne>[0]);
      };
    },
  }) as unknown as CommonQueryMethods;
  const { registry, topics } = createRegistry(t, { pool: db, runtimeUrl: runtime.url, node: 'node-1' });
  const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'node-1' });
  // The stored input of the seed is no whole job; the run is opened and says nothing.
  runtime.script.invoke = () => ({ status: 200, body: { thread_id: row.jobId, status: 'started' } });
  runtime.script.stream = () => undefined;
  const change = { proposalId: row.proposalId, userId: 'ada', viewerId: 'user' };
  await grantViewer(pool, change);
  const before = (statement: string, hook: () => Promise<unknown>) => {
    hooked = { statement, hook };
  };
  return { pool, registry, topics, row, change, before };
}

t.test(
  'a viewer that joins while access is being withdrawn is found at the next reading (rule 19)',
  async (t) => {
    const { pool, registry, topics, row, change, before } = await createHouse(t);
    // Let in by the query of before: version 2.
    const [early, late] = [
      { ...topics.join(), accessVersion: 2 },
      { ...topics.join(), accessVersion: 2 },
    ];
    const closed = new Map<object, number>();
    for (const viewer of [early, late]) viewer.close = (code) => void closed.set(viewer, code);
    await registry.attach(row.threadId, early, {});
    await revokeViewer(pool, change);
    // Between the judging of who is there and the reading of the row, which the actor takes the version from.
    before('read_thread', () => registry.attach(row.threadId, late, {}));
    await registry.start();
    await until(() => closed.size === 2);
    t.strictSame([closed.get(early), closed.get(late)], [4403, 4403]);
  },
);

t.test('a viewer that has joined and cannot be judged is taken out again (rule 19)', async (t) => {
  const { registry, topics, row, before } = await createHouse(t);
  const reads: boolean[] = [];
  const viewer = {
    ...topics.join(),
    subscribe: () => void reads.push(true),
    unsubscribe: () => void reads.push(false),
  };
  before('find_thread', () => Promise.reject(new Error('the database is away')));
  await t.rejects(registry.attach(row.threadId, viewer, {}), { message: 'the database is away' });
  t.strictSame(reads, [true, false]);
  await registry.attach(row.threadId, viewer, {});
  t.strictSame(reads, [true, false, true], 'when it can be, it stays');
});
