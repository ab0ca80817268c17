import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { startRuntimeProcess } from '../support/runtime-process.js';
import { jobOf } from '../support/test-runtime.js';

const prompt = 'Add web search capability to the agent';
const job = (job_id: string) =>
  jobOf({ job_id, input_payload: { messages: [{ role: 'user', content: prompt }] } });
/** The texts of files: their times differ from run to run. */
const textsOf = (files: unknown) =>
  Object.fromEntries(
    Object.entries(files as Record<string, { content: string[] } | null>).map(([path, entry]) => [
      path,
      entry?.content.join('\n') ?? null,
    ]),
  );

test('kill -9 in the middle of a run of real agents: it ends with the same files in epoch 2', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  // So slow that they are not over before they are killed.
  const first = await startRuntimeProcess(database.url, { SCRIPTED_CHUNK_MS: '60' });
  t.teardown(() => first.end('SIGKILL'));
  await first.invoke(job('killed'));
  await first.invoke(job('killed-at-once'));
  const before = first.stream('killed');
  const opening = await before.until((frame) => frame.event_type === 'on_open');
  t.equal(opening.data.epoch, 1);
  await before.until((frame) => frame.event_type === 'on_tool_end');
  await first.end('SIGKILL');
  t.equal(await before.closed, 1006);
  const position = before.frames.at(-1)?.seq;

  const second = await startRuntimeProcess(database.url);
  t.teardown(() => second.end('SIGKILL'));
  await second.invoke(job('undisturbed'));
  const { generated_files: expected } = await second.finished('undisturbed');
  t.ok(Object.keys(expected as object).length > 0);
  for (const id of ['killed', 'killed-at-once']) {
    const after = second.stream(id, `?after=${position}&epoch=1`);
    t.equal(await after.closed, 1000);
    const [open, state, ...rest] = after.frames;
    t.equal(open?.data.epoch, 2);
    t.match(state, { seq: 1, event_type: 'on_state_update' });
    t.same(
      after.frames.slice(1).map((frame) => frame.seq),
      Array.from({ length: rest.length + 1 }, (_, index) => index + 1),
    );
    t.equal(rest.at(-1)?.event_type, 'end');
    const ended = await second.finished(id);
    t.equal(ended.status, 'completed');
    t.same(textsOf(ended.generated_files), textsOf(expected));
    const last = after.frames.filter((frame) => frame.event_type === 'on_state_update').at(-1);
    t.same(last?.data.files, ended.generated_files, 'the last state told is the result');
  }

  await t.test('clean-up leaves no checkpoint', async (t) => {
    for (const id of ['undisturbed', 'killed', 'killed-at-once'])
      t.equal((await second.cleanUp(id)).status, 204);
    for (const table of ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes'])
      t.same(await database.query(`SELECT * FROM checkpoints.${table}`), [], table);
  });

  t.equal(await second.end('SIGTERM'), 0);
});

test('PostgreSQL away for a moment, then SIGTERM: the run of real agents goes on each time', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const first = await startRuntimeProcess(gate.url, { SCRIPTED_CHUNK_MS: '60' });
  t.teardown(() => first.end('SIGKILL'));
  await first.invoke(job('drained'));
  const before = first.stream('drained');
  await before.until((frame) => frame.event_type === 'on_tool_start');
  gate.close();
  t.equal(await before.closed, 1012, 'a checkpoint could not be written: the log ends without an end');
  await gate.open();
  const stream = first.stream('drained', `?after=${before.frames.length}&epoch=1`);
  t.equal((await stream.until((frame) => frame.event_type === 'on_open')).data.epoch, 2);
  t.match(await stream.until((frame) => frame.seq === 1), { event_type: 'on_state_update' });
  await stream.until((frame) => frame.event_type === 'on_tool_start');
  t.equal(await first.end('SIGTERM'), 0);
  t.equal(await stream.closed, 1012);
  t.equal(first.lines.at(-1)?.msg, 'stopped');
  t.ok(
    first.lines.every((line) => line.msg !== 'run started' || (line.thread_id && line.trace_id)),
    'lines of a run carry its ids',
  );

  const second = await startRuntimeProcess(database.url);
  t.teardown(() => second.end('SIGKILL'));
  t.equal((await second.finished('drained')).status, 'completed');
});

test('A process that cannot start says why and exits with 1', async (t) => {
  const start = (databaseUrl: string, env: Record<string, string>) => startRuntimeProcess(databaseUrl, env);
  await t.rejects(start('', { RUN_IDLE_MS: 'x' }), /RUNTIME_DATABASE_URL is required[\s\S]*RUN_IDLE_MS/);
  await t.rejects(start('postgres://nobody@127.0.0.1:1/none', {}), /ECONNREFUSED/);
  await t.rejects(start('postgres://postgres@127.0.0.1:1/none', { MODEL: 'nonsense' }), /MODEL|model/);
});
