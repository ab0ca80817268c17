import { type CommonQueryMethods, sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { listTransitions } from '../../src/db/audit.js';
import { createHeartbeat } from '../../src/db/beat.js';
import { listNodes } from '../../src/db/nodes.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { nameOf } from '../../src/db/statement.js';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRuntime, type ScriptedAnswer } from '../support/scripted-runtime.js';
import { seedProposal, seedWorkflow } from '../support/seed.js';
import { eventually as becomes, until } from '../support/until.js';
import { createRegistry } from './support/registry.js';

const proposal = z.object({
  status: z.string(),
  phase: z.string().nullable(),
  attempt: z.number(),
  ownerNode: z.string().nullable(),
  takenOver: z.number(),
  error: z.object({ code: z.string() }).nullable(),
  files: z.unknown(),
});

/** A replica called `me` on a scripted runtime whose runs have one frame, and two more once `ends` is set. */
async function bench(owner: Test) {
  const { pool, url } = await createTestDatabase(owner);
  const runtime = await createScriptedRuntime();
  owner.teardown(() => runtime.stop());
  const script = { ends: false };
  const frames = [
    { seq: 1, event_type: 'on_llm_stream', data: { content: 'a' } },
    { seq: 2, event_type: 'on_state_update', data: { files: { '/a.md': { content: ['two'] } } } },
    { seq: 3, event_type: 'end', data: {} },
  ];
  // The stored input of a seed is no whole job; the scripted runtime is told to take it.
  runtime.script.invoke = ({ threadId }) => ({
    status: 200,
    body: { thread_id: threadId, status: 'started' },
  });
  runtime.script.stream = (socket, _request, { after }) => {
    const open = { event_type: 'on_open', data: { epoch: 1, first_seq: 1, last_seq: script.ends ? 3 : 1 } };
    for (const frame of [open, ...frames.slice(after ?? 0, script.ends ? 3 : 1)])
      socket.send(JSON.stringify(frame));
    if (script.ends) socket.close(1000);
  };
  const holding: { statement: string; until: Promise<unknown> } = { statement: '', until: Promise.resolve() };
  const db = new Proxy(pool, {
    get(target, name: keyof CommonQueryMethods) {
      if (name !== 'maybeOne') return target[name];
      return async (statement: Parameters<typeof target.maybeOne>[0]) => {
        const answer = await target.maybeOne(statement);
        if (nameOf(statement.sql) === holding.statement) await holding.until;
        return answer;
      };
    },
  }) as CommonQueryMethods;
  const parts = createRegistry(owner, { pool: db, runtimeUrl: runtime.url, node: 'me' });
  const workflow = await seedWorkflow(pool);
  const read = ({ proposalId }: ThreadRow) =>
    pool.one(sql.type(proposal)`
      SELECT status, phase, attempt, owner_node AS "ownerNode", taken_over AS "takenOver", error,
             generated_files AS files
      FROM proposals WHERE id = ${proposalId}`);
  /** Waits until the row is so. */
  const eventually = async (row: ThreadRow, holds: (now: z.infer<typeof proposal>) => boolean) => {
    let now = await read(row);
    await until(async () => {
      now = await read(row);
      return holds(now);
    });
    if (!holds(now)) throw new Error(`it did not come to ${holds}, but ${JSON.stringify(now)}`);
    return now;
  };
  const seed = (options: Parameters<typeof seedProposal>[2]) => seedProposal(pool, workflow, options);
  const takenBefore = ({ proposalId }: ThreadRow, times: number) =>
    pool.query(sql.type(z.object({}))`UPDATE proposals SET taken_over = ${times} WHERE id = ${proposalId}`);
  /** What the statement did can be seen, and its answer has not come, until the function is called. */
  const holdAnswer = (statement: string): (() => void) => {
    let come = (): void => undefined;
    const comes = new Promise<void>((resolve) => {
      come = resolve;
    });
    Object.assign(holding, { statement, until: comes });
    return come;
  };
  return { ...parts, pool, url, runtime, script, seed, takenBefore, read, eventually, holdAnswer };
}

t.test('the fourth take-over in a row fails a thread as poisoned, the third runs it (rule 13)', async (t) => {
  const house = await bench(t);
  const [poisoned, harmless] = [
    await house.seed({ ownerNode: 'gone' }),
    await house.seed({ ownerNode: 'gone' }),
  ];
  await house.takenBefore(poisoned, 3);
  await house.takenBefore(harmless, 2);
  await house.registry.start();
  t.match(await house.eventually(poisoned, ({ status }) => status === 'failed'), {
    takenOver: 4,
    error: { code: 'poisoned' },
  });
  const viewer = house.topics.join();
  await house.registry.attach(poisoned.threadId, viewer, {});
  t.match(viewer.received.slice(1), [
    { event_type: 'error', data: { code: 'poisoned', retryable: false } },
    { event_type: 'end', data: { status: 'failed' } },
  ]);
  // It has read a frame, so the three before say nothing any more.
  await house.eventually(harmless, ({ phase, takenOver }) => phase === 'streaming' && takenOver === 0);
  const invoked = house.runtime.requestsOf('invoke').map(({ threadId }) => threadId);
  t.strictSame(invoked, [harmless.threadId], 'the poisoned one was not run again');
  for (const one of house.runtime.requestsOf('stream')) t.equal(one.threadId, harmless.threadId);
});

t.test('an overdue run is asked for its end before it is failed (rule 13)', async (t) => {
  const house = await bench(t);
  house.runtime.script.invoke = () => 'hang';
  const overdue = { ownerNode: 'gone', totalDeadlineMs: 1 };
  const [ended, failed, running, unknown] = [
    await house.seed(overdue),
    await house.seed(overdue),
    await house.seed(overdue),
    await house.seed(overdue),
  ];
  const said = (row: ThreadRow, rest: object): ScriptedAnswer => ({
    status: 200,
    body: { thread_id: row.threadId, result: null, generated_files: null, ...rest },
  });
  const files = { '/a.md': { content: ['two'] } };
  let away = 4;
  house.runtime.script.state = ({ threadId }) => {
    // Away at first, longer than one call is repeated.
    if (threadId === ended.threadId && away-- > 0) return 'cut';
    if (threadId === ended.threadId) return said(ended, { status: 'completed', generated_files: files });
    if (threadId === running.threadId) return said(running, { status: 'running' });
    const error = { code: 'model_error', message: 'No.', retryable: true };
    if (threadId === failed.threadId) return said(failed, { status: 'failed', error });
    return { status: 404, body: { code: 'thread_not_found', message: 'no' } };
  };
  await house.registry.start();
  const over = ({ status }: { status: string }) => status !== 'processing';
  t.match(await house.eventually(ended, over), { status: 'completed', files });
  t.match(await house.eventually(failed, over), { status: 'failed', error: { code: 'model_error' } });
  t.match(await house.eventually(running, over), {
    status: 'failed',
    error: { code: 'runtime_unavailable' },
  });
  t.match(await house.eventually(unknown, over), {
    status: 'failed',
    error: { code: 'runtime_unavailable' },
  });
  await until(() => house.cleanUps.due === 3);
  t.equal(house.cleanUps.due, 3, 'the failed ones are cleaned up');
});

t.test(
  'an owner that does not reach the runtime gives up to one that does, and to nobody else (rule 16)',
  async (t) => {
    const house = await bench(t);
    const other = { reaches: true };
    const heart = createHeartbeat({
      url: house.url,
      nodeId: 'other',
      name: 'other',
      runtimeReachable: () => other.reaches,
    });
    t.teardown(() => heart.stop());
    await heart.ready;
    await house.registry.start();
    const row = await house.seed({ ownerNode: 'me' });
    t.equal(await house.registry.startRun(row, null), 'started');
    const viewer = house.topics.join();
    await house.registry.attach(row.threadId, viewer, {});
    await house.eventually(row, ({ phase }) => phase === 'streaming');

    await house.runtime.goAway();
    await house.eventually(row, ({ phase }) => phase === 'reconnecting');
    // On a busy machine 15 s might be over before anybody has looked.
    house.clock.stop();
    // A clock that jumps makes the next look a late one, so the one after it judges.
    await house.ticks(2);
    house.clock.pass(9_000);
    await house.ticks(3);
    t.match(await house.read(row), { ownerNode: 'me' }, 'not before 15 s');
    other.reaches = false;
    const told = async () =>
      (await listNodes(house.pool)).some(({ id, runtimeReachable }) => id === 'other' && !runtimeReachable);
    await becomes('told with its next beat', told);
    await house.polls(3);
    house.clock.pass(10_000);
    await house.ticks(3);
    t.match(await house.read(row), { ownerNode: 'me' }, 'not to one that does not reach it either');
    t.ok(house.client.silentMs() > 15_000);
    const answerOfGivingUp = house.holdAnswer('give_up');
    other.reaches = true;
    t.match(await house.eventually(row, ({ ownerNode }) => ownerNode === null), {
      attempt: 1,
      status: 'processing',
    });
    await house.polls(3);
    t.match(await house.read(row), { ownerNode: null }, 'nor does it take back what it is giving up');
    answerOfGivingUp();
    await until(() => house.registry.counts().following === 1);
    t.match((await listTransitions(house.pool, row)).at(-1), {
      event: 'given_up',
      details: { reason: 'runtime_unreached' },
    });
    t.equal(viewer.closed, null, 'its viewers stay, and it goes on as a reader');
    t.strictSame(house.registry.counts(), { following: 1 });

    house.clock.go();
    await heart.stop();
    house.script.ends = true;
    await house.runtime.comeBack();
    t.match(await house.eventually(row, ({ status }) => status === 'completed'), { attempt: 1 });
    t.strictSame(
      viewer.received.flatMap(({ seq }) => seq ?? []),
      [1, 2, 3],
      'where no other lives it is taken back',
    );
    t.strictSame(await listNodes(house.pool), []);
  },
);

t.test('what a request begins while the replica stops is given up, too (rule 8)', async (t) => {
  const house = await bench(t);
  await house.registry.stop();
  const row = await house.seed({ ownerNode: 'me' });
  t.equal(await house.registry.startRun(row, null), 'unknown');
  t.match(await house.read(row), { ownerNode: 'me' });
  await house.registry.giveUpRest();
  t.match(await house.read(row), { ownerNode: null, status: 'processing' });
});
