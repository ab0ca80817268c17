import pg from 'pg';
import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { listTransitions } from '../../src/db/audit.js';
import { startRefinement, untilStatus } from '../support/replica.js';
import { eventually } from '../support/until.js';
import { createHouse, giveToDeadNode, numberedTexts, ownerOf } from './support/house.js';

t.test(
  'a replica that stops hands over: the other goes on at once, and its viewers miss and see nothing twice',
  async (t) => {
    const house = await createHouse(t);
    const other = await house.more();
    const { proposalId, threadId, thread, watcher } = await house.running();
    const reader = await other.watch('ann', threadId);
    thread.push('on_llm_stream', { content: 'a' });
    thread.pushFiles({ '/a.md': 'half' });
    await Promise.all([watcher.until('on_state_update'), reader.until('on_state_update')]);
    const before = await ownerOf(house, proposalId);
    await house.replica.stop();
    t.equal((await watcher.closed).code, 1012);
    await eventually('another owner', async () => ![before, null].includes(await ownerOf(house, proposalId)));
    const changes = (await listTransitions(house.pool, { proposalId })).flatMap(({ event, details }) =>
      ['given_up', 'taken_over'].includes(event) ? [{ event, details }] : [],
    );
    t.match(changes, [
      { event: 'given_up', details: { node: before } },
      { event: 'taken_over', details: { from_node: null } },
    ]);
    t.equal(changes.length, 2, 'from nobody: no death had to be waited for');
    const back = await other.watch('ann', threadId, { after: 2, epoch: '1.1' });
    thread.push('on_llm_stream', { content: 'b' });
    thread.pushFiles({ '/a.md': 'two' });
    thread.end();
    await Promise.all([back.closed, reader.closed]);
    t.match(back.frames[0], { data: { recovery: 'exact', first_seq: 3 } });
    t.strictSame(back.numbers(), [3, 4, 5]);
    t.strictSame(reader.numbers(), [1, 2, 3, 4, 5], 'the viewer of the new owner saw it all once');
    t.equal((await untilStatus(other, proposalId, 'completed')).attempt, 1);
    t.equal(house.runtime.threads.size, 1, 'from one run');
  },
);

t.test('a reader that becomes the owner of a silent run sees it stall (rule 14)', async (t) => {
  // Long enough for the owner to be gone by then.
  const house = await createHouse(t, {}, { runs: { idleMs: 5_000 } });
  const other = await house.more();
  const { proposalId, threadId, thread, watcher } = await house.running();
  const reader = await other.watch('ann', threadId);
  thread.push('on_llm_stream', { content: 'a' });
  await Promise.all([watcher.until('on_llm_stream'), reader.until('on_llm_stream')]);
  await house.replica.stop();
  t.match(await reader.until('on_retry'), { data: { attempt: 2 } });
  const { items } = (await other.call('ann', 'GET', `/api/proposals/${proposalId}/audit`)).body;
  const events = items.map(({ event }: { event: string }) => event);
  t.ok(events.indexOf('taken_over') < events.indexOf('attempt.failed'), events.join(' '));
  t.match(items[events.indexOf('attempt.failed')], { details: { code: 'stalled' } });
});

t.test('a replica whose beat stands still is replaced, and not before 3 s', async (t) => {
  const house = await createHouse(t);
  const { proposalId, thread, watcher } = await house.running();
  thread.push('on_llm_stream', { content: 'a' });
  await watcher.until('on_llm_stream');
  const from = performance.now();
  const dead = await giveToDeadNode(house, proposalId);
  await eventually('another owner', async () => (await ownerOf(house, proposalId)) !== dead);
  const took = performance.now() - from;
  t.ok(took >= 3_000, `${took} ms`);
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  await watcher.closed;
  t.strictSame(watcher.numbers(), [1, 2, 3], 'owner, reader, owner again: its viewer saw nothing twice');
  t.match(await house.proposal(proposalId), { status: 'completed', attempt: 1 });
  const left = sql.type(z.object({ id: z.string() }))`SELECT id FROM nodes WHERE id = ${dead}`;
  await eventually('the dead one is forgotten', async () => (await house.pool.any(left)).length === 0);
});

t.test('every replica sends the very same frames, through a retry and a new log', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { threadId, thread, watcher } = await house.running();
  const reader = await other.watch('ann', threadId);
  thread.push('on_llm_stream', { content: 'a' });
  await Promise.all([watcher.until('on_llm_stream'), reader.until('on_llm_stream')]);
  thread.restart();
  thread.pushFiles({ '/a.md': 'one' });
  await Promise.all([watcher.until('on_state_update'), reader.until('on_state_update')]);
  thread.fail('model_error', 'Again, please.', true);
  t.match(await watcher.until('on_retry'), { data: { attempt: 2, max: 4, epoch: '2.1' } });
  t.match(await reader.until('on_retry'), { data: { attempt: 2, max: 4, epoch: '2.1' } });
  const next = await house.attempt(2);
  for (let index = 0; index < 20; index++) next.push('on_llm_stream', { content: `word ${index}` });
  await Promise.all([watcher.until('on_llm_stream', 21), reader.until('on_llm_stream', 21)]);
  next.pushFiles({ '/a.md': 'two' });
  next.end();
  await Promise.all([watcher.closed, reader.closed]);
  t.strictSame(numberedTexts(reader), numberedTexts(watcher));
  t.strictSame(watcher.numbers(), [1, 1, ...Array.from({ length: 22 }, (_, index) => index + 1)]);
  t.match(await reader.until('on_reset'), { data: { epoch: '1.2' } });
  t.equal((await reader.closed).code, 1000);
  const late = await other.watch('ann', threadId);
  await late.closed;
  t.equal(late.texts.at(-1), watcher.texts.at(-1), 'a late viewer gets the same end');
});

t.test('every replica tells a cancel with the same bytes, and each viewer sees one end', async (t) => {
  const house = await createHouse(t, { cancel: () => ({ status: 202, body: {} }) });
  const other = await house.more();
  const { proposalId, threadId, thread, watcher } = await house.running();
  const reader = await other.watch('ann', threadId);
  thread.pushFiles({ '/a.md': 'half' });
  await Promise.all([watcher.until('on_state_update'), reader.until('on_state_update')]);
  const answer = await other.call('ann', 'POST', `/api/proposals/${proposalId}/cancel`);
  t.equal(answer.status, 202, 'on the replica that does not own it');
  await Promise.all([watcher.closed, reader.closed]);
  t.match(watcher.frames.at(-2), { event_type: 'error', data: { code: 'cancelled' } });
  t.strictSame(reader.texts.slice(-4), watcher.texts.slice(-4), 'on_reset, state, error, end');
  t.strictSame(numberedTexts(reader), numberedTexts(watcher));
  t.match(await reader.until('on_reset'), { data: { epoch: '1.closed' } });
});

t.test('a reader sends no end before the commit of it (rule 10)', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { proposalId, threadId, thread, watcher } = await house.running();
  const reader = await other.watch('ann', threadId);
  thread.pushFiles({ '/a.md': 'two' });
  await Promise.all([watcher.until('on_state_update'), reader.until('on_state_update')]);
  // Not a connection of the pool, whose transactions may not idle.
  const holder = new pg.Client({ connectionString: house.databaseUrl });
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('BEGIN');
  await holder.query('SELECT 1 FROM proposals WHERE id = $1 FOR UPDATE', [proposalId]);
  thread.end();
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.notOk(reader.kinds().includes('end'));
  t.notOk(watcher.kinds().includes('end'));
  await holder.query('ROLLBACK');
  await Promise.all([watcher.closed, reader.closed]);
  t.equal(reader.texts.at(-1), watcher.texts.at(-1));
});

t.test('a reader that was there before the run was known to the runtime sees all of it', async (t) => {
  const house = await createHouse(t, { invoke: () => ({ status: 200, body: 'no answer that can be read' }) });
  const other = await house.more();
  const { proposalId, threadId } = await startRefinement(house.replica, 'ann');
  const reader = await other.watch('ann', threadId);
  await house.runtime.untilRequest('stream');
  delete house.runtime.script.invoke;
  const thread = await house.attempt(1);
  thread.push('on_llm_stream', { content: 'a' });
  await reader.until('on_llm_stream');
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  await reader.closed;
  t.strictSame(reader.numbers(), [1, 2, 3]);
  t.notOk(reader.kinds().includes('on_skipped'));
  t.match(await house.proposal(proposalId), { status: 'completed' });
});

t.test('a reader finds a run by the name that the runtime gave it', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  // The scripted runtime names its runs by their jobs; this one answers with another name.
  const names = new Map<string, string>();
  house.runtime.script.invoke = (request) => {
    names.set(`run-of-${request.threadId}`, request.threadId);
    return { status: 200, body: { thread_id: `run-of-${request.threadId}`, status: 'started' } };
  };
  house.runtime.script.stream = (socket, request) => {
    if (!names.has(request.threadId)) return socket.close(1011);
    socket.send(JSON.stringify({ event_type: 'on_open', data: { epoch: 1, first_seq: 1, last_seq: 1 } }));
    socket.send(JSON.stringify({ seq: 1, event_type: 'on_llm_stream', data: { content: request.threadId } }));
  };
  house.runtime.script.upgrade = (request) => (names.has(request.threadId) ? undefined : { status: 404 });
  const { threadId } = await startRefinement(house.replica, 'ann');
  const reader = await other.watch('ann', threadId);
  t.match(await reader.until('on_llm_stream'), { seq: 1, data: { content: `run-of-${threadId}` } });
});

t.test('a reader that is behind delivers what it lacks before it tells the end (rule 18)', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const sockets: { send(text: string): void; close(code: number): void }[] = [];
  house.runtime.script.stream = (socket) => void sockets.push(socket);
  const { threadId, watcher } = await house.running();
  await eventually('the owner reads', () => sockets.length === 1);
  const reader = await other.watch('ann', threadId);
  await eventually('two readers', () => sockets.length === 2);
  const frames = [
    { event_type: 'on_open', data: { epoch: 1, first_seq: 1, last_seq: 0 } },
    { seq: 1, event_type: 'on_llm_stream', data: { content: 'a' } },
    { seq: 2, event_type: 'on_state_update', data: { files: { '/a.md': { content: ['two'] } } } },
    { seq: 3, event_type: 'on_llm_stream', data: { content: 'b' } },
    { seq: 4, event_type: 'end', data: {} },
  ].map((frame) => JSON.stringify(frame));
  for (const frame of frames) sockets[0]?.send(frame);
  t.equal((await watcher.closed).code, 1000);
  // The commit is known everywhere by now; the other replica's socket is slow.
  await new Promise((resolve) => setTimeout(resolve, 150));
  for (const frame of frames) sockets[1]?.send(frame);
  t.equal((await reader.closed).code, 1000);
  t.strictSame(reader.numbers(), [1, 2, 3, 4]);
  t.strictSame(numberedTexts(reader), numberedTexts(watcher));
});

t.test('a viewer’s message reaches the run through a replica that only reads', async (t) => {
  const house = await createHouse(t);
  const other = await house.more();
  const { threadId, thread, watcher } = await house.running();
  const reader = await other.watch('ann', threadId);
  thread.push('on_llm_stream', { content: 'a' });
  await Promise.all([watcher.until('on_llm_stream'), reader.until('on_llm_stream')]);
  const [fromOwner, fromReader] = [
    { type: 'message', content: 'to the owner' },
    { type: 'message', content: 'to the reader' },
  ];
  reader.socket.send(JSON.stringify(fromReader));
  await eventually('a message', () => thread.messages.length === 1);
  watcher.socket.send(JSON.stringify(fromOwner));
  await eventually('the other', () => thread.messages.length === 2);
  t.strictSame(thread.messages, [fromReader, fromOwner]);
  t.notOk(reader.kinds().includes('error'));
});
