import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { untilStatus } from '../support/replica.js';
import { eventually } from '../support/until.js';
import { createHouse } from './support/house.js';

const nothing = z.object({});

t.test('a row of ours without an actor is revived, under the generation that it has (rule 2)', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  // As after a take-over whose answer was lost: the row is ours under a generation that no actor knows.
  await house.pool.query(sql.type(nothing)`
    UPDATE proposals SET owner_generation = owner_generation + 1, version = version + 1 WHERE id = ${proposalId}`);
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  await watcher.closed;
  t.strictSame(watcher.numbers(), [1, 2, 3]);
  t.match(await house.proposal(proposalId), { status: 'completed', attempt: 1 });
});

t.test('an actor without work and viewers is forgotten, and a viewer revives it', async (t) => {
  const house = await createHouse(t, {}, { runs: { idleActorMs: 1 } });
  const { proposalId, threadId, thread, watcher } = await house.running();
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  await watcher.closed;
  await eventually('no actor', () => house.replica.service.threads() === 0);
  const late = await house.replica.watch('ann', threadId, { after: 1, epoch: '1.1' });
  t.equal((await late.closed).code, 1000);
  t.match(late.frames[0], { data: { status: 'completed', recovery: 'exact', first_seq: 2, last_seq: 2 } });
  t.equal(late.texts.at(-1), watcher.texts.at(-1));
  const done = await house.replica.watch('ann', threadId, { after: 2, epoch: '1.1' });
  t.equal((await done.closed).code, 1000);
  t.strictSame(done.kinds(), ['on_subscribed']);
  t.match(await house.proposal(proposalId), { status: 'completed' });
});

t.test('a replica whose last viewer of another’s run has left stops reading it', async (t) => {
  const house = await createHouse(t, {}, { runs: { idleActorMs: 1 } });
  const other = await house.more();
  const { threadId, thread } = await house.running();
  const reader = await other.watch('ann', threadId);
  await eventually('two readers', () => thread.readers === 2);
  reader.socket.close();
  await eventually('no actor', () => other.service.threads() === 0);
  await eventually('one reader', () => thread.readers === 1);
  thread.push('on_llm_stream', { content: 'a' });
  const back = await other.watch('ann', threadId, { after: 0, epoch: '1.1' });
  t.match(await back.until('on_llm_stream'), { seq: 1 });
});

t.test('a decision is seen by the actor, and told to later viewers', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { proposalId, threadId, thread, watcher } = await house.running();
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  await watcher.closed;
  t.equal((await other.call('ann', 'POST', `/api/proposals/${proposalId}/approve`)).status, 200);
  await eventually('resolved', async () => {
    const late = await house.replica.watch('ann', threadId);
    await late.closed;
    return late.frames[0]?.data.status === 'resolved';
  });
});

t.test('access that is withdrawn closes a reading viewer with 4403, on any replica (rule 19)', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { proposalId, threadId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await house.replica.call('ann', 'PUT', `/api/proposals/${proposalId}/access/bob`);
  const bobs = await Promise.all([house.replica, other].map((one) => one.watch('bob', threadId)));
  await Promise.all(bobs.map((bob) => bob.until('on_llm_stream')));
  await house.replica.call('ann', 'DELETE', `/api/proposals/${proposalId}/access/bob`);
  for (const bob of bobs) t.equal((await bob.closed).code, 4403);
  thread.push('on_llm_stream', { content: 'b' });
  await watcher.until('on_llm_stream', 2);
});

t.test('a workflow that is deleted closes all its viewers with 4404 and ends its run', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { proposalId, threadId, workflowId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await house.replica.call('ann', 'PUT', `/api/proposals/${proposalId}/access/bob`);
  const bob = await other.watch('bob', threadId);
  await Promise.all([watcher.until('on_llm_stream'), bob.until('on_llm_stream')]);
  t.equal((await house.replica.call('ann', 'DELETE', `/api/workflows/${workflowId}`)).status, 204);
  t.equal((await watcher.closed).code, 4404);
  t.equal((await bob.closed).code, 4404);
  t.notOk(watcher.kinds().includes('end'));
  await house.runtime.untilRequest('cleanup');
  await eventually('failed', async () => {
    const status = await house.pool.oneFirst(sql.type(z.object({ status: z.string() }))`
      SELECT status FROM proposals WHERE id = ${proposalId}`);
    return status === 'failed';
  });
  await t.rejects(house.replica.watch('ann', threadId), { message: /404/ }, 'finished, it is not found');
});

t.test('a replica that starts takes over at once what the one before it left behind', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  await house.replica.stop();
  await house.pool.query(sql.type(nothing)`
    WITH node AS (INSERT INTO nodes (id, name, beat) VALUES ('killed', 'killed', 41))
    UPDATE proposals SET owner_node = 'killed' WHERE id = ${proposalId}`);
  const next = await house.more(true);
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  t.match(await untilStatus(next, proposalId, 'completed'), { attempt: 1 });
});
