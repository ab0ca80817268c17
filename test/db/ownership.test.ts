import { randomUUID } from 'node:crypto';
import pg from 'pg';
import t from 'tap';
import { z } from 'zod';
import { grantViewer, revokeViewer } from '../../src/db/access.js';
import { listTransitions } from '../../src/db/audit.js';
import { createHeartbeat } from '../../src/db/beat.js';
import { createListener } from '../../src/db/listen.js';
import { forgetNodes, listNodes } from '../../src/db/nodes.js';
import { named } from '../../src/db/pool.js';
import {
  findProposalFor,
  findThreadFor,
  listReviveable,
  readThread,
  rereadThreads,
  takeOver,
  unfinishedOwnedBy,
} from '../../src/db/proposals.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { commitPhase, giveUp } from '../../src/db/run-progress.js';
import { noRow } from '../../src/db/statement.js';
import { clearTakenOver, giveUpOwned } from '../../src/db/threads.js';
import { createTestDatabase } from '../support/database.js';
import { completeWith, fenceOf, seedProposal, seedWorkflow } from '../support/seed.js';
import { eventually, until } from '../support/until.js';

const { pool, url } = await createTestDatabase(t);

const beats = z.object({ id: z.string(), name: z.string(), beat: z.number(), reachable: z.boolean() });
const nodes = () =>
  pool.any(
    named('nodes', beats)`SELECT id, name, beat, runtime_reachable AS reachable FROM nodes ORDER BY id`,
  );
const killBackends = (application: string) =>
  pool.query(named('kill', noRow)`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = ${application}`);

t.test('a take-over raises the generation, and the owner before can write no more', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'old' });
  const wanted = {
    threadId: row.threadId,
    fromNode: 'old',
    fromGeneration: 1,
    toNode: 'new',
    transitionId: randomUUID(),
  };
  t.equal(await takeOver(pool, { ...wanted, fromNode: 'other' }), null);
  t.equal(await takeOver(pool, { ...wanted, fromNode: null }), null);
  t.equal(await takeOver(pool, { ...wanted, fromGeneration: 2 }), null);
  const taken = await takeOver(pool, wanted);
  t.match(taken, { ownerNode: 'new', ownerGeneration: 2, version: 2, takenOver: 1, jobId: row.threadId });
  t.same({ ...(await readThread(pool, row)), deadlineInMs: taken?.deadlineInMs }, taken);
  const opened = { from: 'invoking', to: 'streaming', event: 'runtime.opened', attempt: 1 } as const;
  t.equal(await commitPhase(pool, fenceOf(row), opened), null);
  t.match((await listTransitions(pool, row)).at(-1), {
    event: 'taken_over',
    from: 'invoking',
    to: 'invoking',
    details: { from_node: 'old', to_node: 'new' },
  });
  if (!taken) return;
  t.same(await clearTakenOver(pool, fenceOf(taken)), { version: 3 });
  t.match(await readThread(pool, row), { takenOver: 0 });
});

t.test('of two that take over at once one does', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'old' });
  const take = (toNode: string) =>
    takeOver(pool, {
      threadId: row.threadId,
      fromNode: 'old',
      fromGeneration: 1,
      toNode,
      transitionId: randomUUID(),
    });
  const taken = await Promise.all([take('x'), take('y'), take('z')]);
  t.equal(taken.filter(Boolean).length, 1);
});

t.test('an owner whose beat moved keeps its thread', async (t) => {
  const row = await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'beating' });
  await pool.query(named('node', noRow)`INSERT INTO nodes (id, name, beat) VALUES ('beating', 'b', 5)`);
  const wanted = { threadId: row.threadId, fromNode: 'beating', fromGeneration: 1, toNode: 'new' };
  t.equal(await takeOver(pool, { ...wanted, fromBeat: 4, transitionId: randomUUID() }), null);
  t.ok(await takeOver(pool, { ...wanted, fromBeat: 5, transitionId: randomUUID() }));
});

t.test('what may be revived: nobody’s, a stranger’s and the dead’s, never the finished', async (t) => {
  const workflow = await seedWorkflow(pool);
  await pool.query(named('node', noRow)`
    INSERT INTO nodes (id, name) VALUES ('living', 'l'), ('dead', 'd') ON CONFLICT DO NOTHING`);
  const mine = await seedProposal(pool, workflow, { ownerNode: 'me' });
  const livings = await seedProposal(pool, workflow, { ownerNode: 'living' });
  const deads = await seedProposal(pool, workflow, { ownerNode: 'dead' });
  const strangers = await seedProposal(pool, workflow, { ownerNode: 'gone' });
  const nobodys = await seedProposal(pool, workflow, { ownerNode: 'gave-up' });
  t.ok(await giveUp(pool, fenceOf(nobodys), { from: 'invoking', attempt: 1 }));
  await completeWith(pool, await seedProposal(pool, workflow, { ownerNode: 'gone' }), { '/a.md': 'x' });
  const ids = (rows: { threadId: string }[]) => rows.map((row) => row.threadId);
  const some = ids(await listReviveable(pool, { node: 'me', all: false, deadNodes: ['dead'], limit: 100 }));
  t.ok(some.includes(deads.threadId) && some.includes(strangers.threadId) && some.includes(nobodys.threadId));
  t.notOk(some.includes(livings.threadId) || some.includes(mine.threadId));
  const all = ids(await listReviveable(pool, { node: 'me', all: true, limit: 100 }));
  t.ok(all.includes(livings.threadId));
  t.notOk(all.includes(mine.threadId));
  t.same(await unfinishedOwnedBy(pool, { node: 'me' }), [mine.threadId]);
  t.same(await unfinishedOwnedBy(pool, { node: 'nobody' }), []);
  t.match(
    await takeOver(pool, {
      threadId: nobodys.threadId,
      fromNode: null,
      fromGeneration: 1,
      toNode: 'me',
      transitionId: randomUUID(),
    }),
    {
      takenOver: 0,
      ownerNode: 'me',
    },
  );
});

t.test('a replica that stops gives up what is its own, in batches, each on record (rule 12)', async (t) => {
  const workflow = await seedWorkflow(pool);
  const seed = (ownerNode: string) => seedProposal(pool, workflow, { ownerNode });
  const mine = await Promise.all(Array.from({ length: 5 }, () => seed('stopping')));
  const [kept, locked] = mine as [ThreadRow, ThreadRow];
  const others = await seed('living');
  const give = (except: string[] = []) => giveUpOwned(pool, { node: 'stopping', except, limit: 2 });
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query('SELECT 1 FROM proposals WHERE id = $1 FOR UPDATE', [locked.proposalId]);
  t.equal(await give([kept.threadId]), 2);
  t.equal(await give([kept.threadId]), 1, 'the one that is held is passed over');
  await holder.end();
  t.equal(await give(), 2);
  t.equal(await give(), 0);
  for (const row of mine) {
    t.match(await readThread(pool, row), { ownerNode: null, ownerGeneration: 1, version: 2, takenOver: 0 });
    t.match((await listTransitions(pool, row)).at(-1), { event: 'given_up', details: { node: 'stopping' } });
    const opened = { from: 'invoking', to: 'streaming', event: 'runtime.opened', attempt: 1 } as const;
    t.equal(
      await commitPhase(pool, fenceOf(row), opened),
      null,
      'a commit that was under way touches nothing',
    );
  }
  t.match(await readThread(pool, others), { ownerNode: 'living', version: 1 });
});

t.test('one query re-reads what may have moved', async (t) => {
  const workflow = await seedWorkflow(pool);
  const rows = [await seedProposal(pool, workflow), await seedProposal(pool, workflow)];
  t.same(await rereadThreads(pool, []), []);
  const read = await rereadThreads(
    pool,
    rows.map((row) => row.threadId),
  );
  t.equal(read.length, 2);
  t.match(read[0], {
    attempt: 1,
    status: 'processing',
    version: 1,
    accessVersion: 1,
    cancelRequested: false,
    ownerNode: 'node-1',
    ownerGeneration: 1,
  });
});

t.test('a viewer is let in and out by the owner, and open sockets can find out', async (t) => {
  const workflow = await seedWorkflow(pool);
  const row = await seedProposal(pool, workflow);
  const change = { proposalId: row.proposalId, userId: 'ada', viewerId: 'vic' };
  const heard: string[] = [];
  const listener = createListener({
    url,
    channel: 'threads',
    onNotify: (payload) => heard.push(payload),
    onReconnect: () => {},
  });
  await listener.ready;
  t.equal(await grantViewer(pool, { ...change, userId: 'vic' }), 'not_found');
  t.equal(await grantViewer(pool, change), 'ok');
  t.equal(await grantViewer(pool, change), 'ok');
  t.equal(await grantViewer(pool, { ...change, viewerId: 'ada' }), 'ok', 'the owner stays the owner');
  t.match(await findProposalFor(pool, { ...change, userId: 'vic' }), { access: 'viewer' });
  t.match(await findThreadFor(pool, { threadId: row.threadId, userId: 'vic' }), {
    access: 'viewer',
    accessVersion: 2,
  });
  t.equal(await revokeViewer(pool, { ...change, userId: 'vic', viewerId: 'ada' }), 'forbidden');
  t.equal(await revokeViewer(pool, { ...change, viewerId: 'ada' }), 'ok');
  t.match(await findProposalFor(pool, change), { access: 'owner' });
  t.equal(await revokeViewer(pool, change), 'ok');
  t.equal(await revokeViewer(pool, change), 'ok');
  t.equal(await findProposalFor(pool, { ...change, userId: 'vic' }), null);
  t.match(await readThread(pool, row), { accessVersion: 3, version: 3 });
  await eventually('both are heard', () => heard.length >= 2);
  await listener.stop();
  t.same(heard, [row.threadId, row.threadId]);
});

t.test('a listener that lost its connection comes back and says so (rule 11)', async (t) => {
  let connects = 0;
  const warnings: string[] = [];
  const heard: string[] = [];
  const listener = createListener({
    url,
    channel: 'threads',
    onNotify: (payload) => heard.push(payload),
    onReconnect: () => {
      connects += 1;
    },
    logger: { warn: (_fields, message) => warnings.push(message) },
  });
  await listener.ready;
  await killBackends('ide-orchestrator-listen');
  await eventually('connected again', () => connects === 2);
  t.equal(warnings[0], 'the listening connection was lost');
  await pool.query(named('notify', noRow)`SELECT pg_notify('threads', 'hello')`);
  await eventually('it hears', () => heard.includes('hello'));
  await listener.stop();
});

t.test('a listener without a server waits, and can be stopped', async (t) => {
  const nobody = new URL(url);
  nobody.port = '1';
  const warnings: string[] = [];
  const listener = createListener({
    url: nobody.toString(),
    channel: 'threads',
    onNotify: () => {},
    onReconnect: () => {},
    logger: { warn: (_fields, message) => warnings.push(message) },
  });
  await until(() => warnings.length >= 2);
  t.ok(warnings.length >= 2, 'it tries again');
  await listener.stop();
  await listener.ready;
});

t.test('the heart beats, survives its connection, and leaves when nothing names it', async (t) => {
  let reachable = false;
  const heart = createHeartbeat({ url, nodeId: 'heart', name: 'pod-1', runtimeReachable: () => reachable });
  await heart.ready;
  const mine = async () => (await nodes()).find((node) => node.id === 'heart');
  t.match(await mine(), { name: 'pod-1', reachable: false });
  reachable = true;
  await eventually('told with a beat', async () => (await mine())?.reachable === true);
  t.ok(((await mine())?.beat ?? 0) >= 1);
  await killBackends('ide-orchestrator-beat');
  const before = (await mine())?.beat ?? 0;
  await eventually('it beats on', async () => ((await mine())?.beat ?? 0) > before + 1);
  await heart.stop();
  t.equal(await mine(), undefined);
});

t.test('a node that a proposal still names stays on record', async (t) => {
  const heart = createHeartbeat({ url, nodeId: 'named', name: 'pod-2' });
  await heart.ready;
  await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'named' });
  await heart.stop();
  t.ok((await nodes()).some((node) => node.id === 'named'));
});

t.test('a dead replica is forgotten once nothing names it', async (t) => {
  await pool.query(named('node', noRow)`
    INSERT INTO nodes (id, name, beat, runtime_reachable) VALUES ('free', 'f', 7, true), ('bound', 'b', 0, false)`);
  await seedProposal(pool, await seedWorkflow(pool), { ownerNode: 'bound' });
  t.match(
    (await listNodes(pool)).find((node) => node.id === 'free'),
    { beat: 7, runtimeReachable: true },
  );
  await forgetNodes(pool, { ids: ['free', 'bound'] });
  const left = (await listNodes(pool)).map((node) => node.id);
  t.notOk(left.includes('free'));
  t.ok(left.includes('bound'));
});
