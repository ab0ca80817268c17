import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { eventually } from '../support/eventually.js';
import { briefScript, createScriptedRunner, endlessScript } from '../support/scripted-runner.js';
import { jobOf, startRuntime } from '../support/test-runtime.js';

test('A thread that was cleaned up stays clean (rule 21)', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const runner = createScriptedRunner(async (stage) =>
    stage.input.agent_definition.endless === true ? endlessScript(stage) : briefScript(stage),
  );
  const runtime = await startRuntime(gate.url, runner);
  t.teardown(() => runtime.stop());
  const endless = (job_id: string) => jobOf({ job_id, agent_definition: { endless: true } });
  const notFound = { status: 404, body: { code: 'thread_not_found' } };

  await t.test('a finished one is gone everywhere, and its job is 410', async (t) => {
    const job = jobOf({ job_id: 'done' });
    await runtime.invoke(job);
    await runtime.finished('done');
    t.equal((await runtime.cleanUp('done')).status, 204);
    t.match(await runtime.cleanUp('done'), notFound);
    t.match(await runtime.state('done'), notFound);
    t.equal(await runtime.cancel('done'), 404);
    t.equal(await runtime.refused('done'), 404);
    t.match(await runtime.invoke(job), { status: 410, body: { code: 'thread_gone' } });
    const [row] = await database.query("SELECT * FROM runs WHERE thread_id = 'done'");
    t.match(row, { status: 'deleted', input: null, files: null, error: null });
  });

  await t.test('an unknown one is 404 and barred all the same', async (t) => {
    t.match(await runtime.cleanUp('never'), notFound);
    t.equal((await runtime.invoke(jobOf({ job_id: 'never' }))).status, 410);
  });

  await t.test(
    'a running one is ended first; its reader is sent away and does not find it again',
    async (t) => {
      await runtime.invoke(endless('running'));
      const stream = runtime.stream('running');
      await stream.until((frame) => frame.event_type === 'on_state_update');
      t.equal((await runtime.cleanUp('running')).status, 204);
      t.equal(await stream.closed, 1012);
      t.notOk(stream.frames.some((frame) => frame.event_type === 'end'));
      t.equal(await runtime.refused('running'), 404);
      t.equal(await runner.read('running'), null);
    },
  );

  await t.test('several at once all delete it', async (t) => {
    await runtime.invoke(endless('together'));
    const answers = await Promise.all([1, 2, 3].map(() => runtime.cleanUp('together')));
    for (const { status } of answers) t.ok(status === 204 || status === 404, `${status}`);
    t.ok(answers.some(({ status }) => status === 204));
  });

  await t.test('while it goes on the thread is not found', async (t) => {
    await runtime.invoke(endless('slow'));
    let release: (() => void) | null = null;
    runner.onPurge = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const going = runtime.cleanUp('slow');
    await eventually('it is being deleted', () => release !== null);
    t.match(await runtime.state('slow'), notFound);
    t.equal(await runtime.refused('slow'), 404);
    t.equal(await runtime.cancel('slow'), 404);
    runner.onPurge = async () => {};
    (release as unknown as () => void)();
    t.equal((await going).status, 204);
  });

  await t.test(
    'until it is committed the thread is there: 404 means that there is no row (rule 22)',
    async (t) => {
      await runtime.invoke(endless('held'));
      const holder = new pg.Client({ connectionString: database.url });
      await holder.connect();
      await holder.query("BEGIN; SELECT FROM runs WHERE thread_id = 'held' FOR UPDATE");
      const going = runtime.cleanUp('held');
      const waiting = `SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      await eventually('it waits', async () => (await database.query(waiting)).length > 0);
      t.match(await runtime.state('held'), { status: 200, body: { status: 'running' } });
      await holder.query('COMMIT');
      await holder.end();
      t.equal((await going).status, 204);
      t.match(await runtime.state('held'), notFound);
    },
  );

  await t.test('racing with invoke it wins, or the job is never run after it', async (t) => {
    for (let round = 0; round < 30; round++) {
      const id = `race-${round}`;
      const [invoked, cleaned] = await Promise.all([
        runtime.invoke(endless(id)),
        sleep(round % 5).then(() => runtime.cleanUp(id)),
      ]);
      t.ok([200, 410].includes(invoked.status));
      t.ok([204, 404].includes(cleaned.status));
      t.equal(await runner.read(id), null);
      t.equal((await runtime.state(id)).status, 404);
    }
    const metrics = String((await runtime.request('/metrics')).body);
    t.ok(metrics.includes('deepagents_runtime_runs{status="running"} 0'));
  });

  await t.test('one that could not be finished is 503, and finished when it is repeated', async (t) => {
    await runtime.invoke(jobOf({ job_id: 'broken' }));
    await runtime.finished('broken');
    runner.onPurge = async () => {
      throw new Error('relation "checkpoints" at 10.0.0.1 went away');
    };
    const refused = await runtime.cleanUp('broken');
    t.match(refused, { status: 503, body: { code: 'not_ready' } });
    t.notMatch(JSON.stringify(refused.body), /10\.0\.0\.1|relation/, 'nothing internal is told');
    t.equal((await runtime.state('broken')).status, 404, 'barred already');
    runner.onPurge = async () => {};
    t.equal((await runtime.cleanUp('broken')).status, 204);
  });

  await t.test('one that nobody repeats is finished by the next process', async (t) => {
    await runtime.invoke(jobOf({ job_id: 'left' }));
    await runtime.finished('left');
    runner.onPurge = async () => {
      throw new Error('away');
    };
    t.equal((await runtime.cleanUp('left')).status, 503);
    runner.onPurge = async () => {};
    const next = await startRuntime(database.url, runner);
    await eventually('it is finished', () => runner.purged.includes('left'));
    await next.stop();
    t.ok(runner.purged.includes('left'));
    t.match(await runtime.cleanUp('left'), notFound);
  });
});

test('A run whose agent does not stop is not reported as deleted', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const stuck = createScriptedRunner(async () => ({ status: 'completed', files: {} }));
  let stop = (): void => {};
  stuck.run = () => ({
    done: new Promise((resolve) => {
      stop = () => resolve({ status: 'completed', files: {} });
    }),
    abort: () => {},
    drain: () => {},
    message: () => {},
  });
  const runtime = await startRuntime(database.url, stuck, { stopGraceMs: 10, abortGraceMs: 50 });
  await runtime.invoke(jobOf({ job_id: 'stuck' }));
  t.equal((await runtime.cleanUp('stuck')).status, 503);
  stop();
  await eventually('deleted', async () => (await runtime.cleanUp('stuck')).status === 204);
  await runtime.stop();
});
