import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import t from 'tap';
import { requestCancel } from '../../src/db/decisions.js';
import { readThread } from '../../src/db/proposals.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { nameOf } from '../../src/db/statement.js';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { createRegistry } from './support/registry.js';

const files = { '/a.md': { content: ['x'.repeat(100_000)] } };

t.test(
  'an end that was let go gives its room back when its proposal is cancelled while the runtime is away (rule 17)',
  async (t) => {
    const { pool } = await createTestDatabase(t);
    const runtime = await createScriptedRuntime();
    t.teardown(() => runtime.stop());
    runtime.script.invoke = ({ threadId }) => ({
      status: 200,
      body: { thread_id: threadId, status: 'started' },
    });
    runtime.script.stream = (socket) => {
      // The one with the files is not the newest, and larger than the window: only the runtime has it then.
      const frames = [
        { seq: 1, event_type: 'on_state_update', data: { files } },
        { seq: 2, event_type: 'on_state_update', data: { todos: [] } },
        { seq: 3, event_type: 'end', data: {} },
      ];
      for (const frame of frames) socket.send(JSON.stringify(frame));
      socket.close(1000);
    };
    runtime.script.state = ({ threadId }) => ({
      status: 200,
      body: { thread_id: threadId, status: 'completed', result: null, generated_files: files },
    });
    let letThrough = () => {};
    const through = new Promise<void>((resolve) => {
      letThrough = resolve;
    });
    const slow: CommonQueryMethods = {
      ...pool,
      async maybeOne(query) {
        if (nameOf(query.sql) === 'commit_completed') await through;
        return pool.maybeOne(query);
      },
    };
    const { registry } = createRegistry(t, {
      pool: slow,
      runtimeUrl: runtime.url,
      node: 'me',
      config: {
        // Room for one end at a time.
        database: { waitingCommitBytes: 1 },
        window: { threadBytes: 1_024 },
        runtime: { invokeDeadlineMs: 1_000, callDeadlineMs: 1_000, handshakeTimeoutMs: 1_000 },
      },
      circuitOpenMs: 1,
    });
    const workflow = await seedWorkflow(pool);
    const now = async (row: ThreadRow) => (await readThread(pool, row)) as ThreadRow;
    /** The row as it has ended; as it is after 20 s regardless. */
    const ended = async (row: ThreadRow) => {
      for (let look = 0; look < 1_000 && (await now(row)).status === 'processing'; look++) await wait(20);
      return now(row);
    };
    /** In this order they come for the room. */
    const rows: ThreadRow[] = [];
    for (const waiting of [1, 2, 3]) {
      const row = await seedProposal(pool, workflow, { ownerNode: 'me' });
      await registry.startRun(row, null);
      while (registry.counts().finalizing !== waiting) await wait(5);
      rows.push(row);
    }
    const [first, second, third] = rows as [ThreadRow, ThreadRow, ThreadRow];
    await registry.start();
    await runtime.goAway();
    letThrough();
    t.match(await ended(first), { status: 'completed' });
    t.strictSame(
      registry.counts(),
      { completed: 1, finalizing: 2 },
      'the second has the room, and reads in vain',
    );
    await requestCancel(pool, { proposalId: second.proposalId, userId: workflow.userId });
    t.match(await ended(second), { status: 'failed', error: { code: 'cancelled' } });
    t.match(await now(third), { status: 'processing' });
    await runtime.comeBack();
    t.match(await ended(third), { status: 'completed' }, 'the third has it now');
  },
);
