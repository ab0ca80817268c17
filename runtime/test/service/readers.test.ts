import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createScriptedRunner, file, type Script } from '../support/scripted-runner.js';
import { jobOf, type Stream, startRuntime } from '../support/test-runtime.js';

const megabytes = 1024 * 1024;

const script: Script = async ({ token, files, wait, input, messages }) => {
  const {
    tokens = 0,
    state = 0,
    pause = 0,
    size = 10,
    held = 0,
  } = input.agent_definition as Record<string, number>;
  // Until its reader is there and says so: a busy machine may let it in late.
  while (held > 0 && messages.length === 0) await wait(5);
  for (let n = 1; n <= tokens; n++) {
    token(`${n}`.padEnd(size, '.'));
    if (n % 100 === 0) await wait(pause);
  }
  const result = { '/big.md': file('x'.repeat(state)) };
  files(result);
  return { status: 'completed', files: result };
};

/** Every number once, in order, from the first on. */
const isGapless = ({ frames }: Stream, first = 1): boolean =>
  frames.slice(1).every((frame, index) => frame.seq === first + index);

test('Readers get every event, however many, however big, however late', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runner = createScriptedRunner(script);
  const runtime = await startRuntime(database.url, runner);
  t.teardown(() => runtime.stop());

  await t.test(
    'ten thousand events and a state of 5 MB reach an early and a late reader alike',
    async (t) => {
      const agent_definition = { tokens: 10_000, state: 5 * megabytes, pause: 1 };
      await runtime.invoke(jobOf({ job_id: 'many', agent_definition }));
      const early = runtime.stream('many');
      await early.until((frame) => frame.seq === 2_000);
      const late = runtime.stream('many');
      const back = runtime.stream('many', '?after=1500&epoch=1');
      t.same(await Promise.all([early.closed, late.closed, back.closed]), [1000, 1000, 1000]);
      t.equal(early.frames.length, 10_003);
      t.ok(isGapless(early));
      t.same(late.texts.slice(1), early.texts.slice(1));
      t.ok(isGapless(back, 1501));
      t.equal(back.frames.at(-1)?.seq, 10_002);
      const after = runtime.stream('many');
      await after.closed;
      t.same(after.texts.slice(1), early.texts.slice(1), 'and one that comes after the end');
    },
  );

  await t.test('a frame of 12 MB arrives, and what follows it', async (t) => {
    await runtime.invoke(jobOf({ job_id: 'huge', agent_definition: { tokens: 5, state: 12 * megabytes } }));
    const stream = runtime.stream('huge');
    t.equal(await stream.closed, 1000);
    t.ok(isGapless(stream));
    t.equal(stream.frames.at(-1)?.event_type, 'end');
    t.ok((stream.texts.at(-2)?.length ?? 0) > 12 * megabytes);
  });

  await t.test('a reader that pauses slows nobody and still gets everything', async (t) => {
    const agent_definition = { tokens: 20_000, size: 1000, pause: 1 };
    await runtime.invoke(jobOf({ job_id: 'paused', agent_definition }));
    const slow = runtime.stream('paused');
    await slow.until((frame) => frame.seq === 1);
    slow.socket.pause();
    const quick = runtime.stream('paused');
    t.equal(await quick.closed, 1000);
    t.ok(isGapless(quick));
    t.notOk(slow.frames.some((frame) => frame.event_type === 'end'));
    slow.socket.resume();
    t.equal(await slow.closed, 1000);
    t.equal(slow.frames.length, 20_003);
    t.ok(isGapless(slow));
  });

  await t.test('twenty runs at once keep their numbers apart', async (t) => {
    const ids = Array.from({ length: 20 }, (_, n) => `at-once-${n}`);
    await Promise.all(
      ids.map((job_id) => runtime.invoke(jobOf({ job_id, agent_definition: { tokens: 300, pause: 1 } }))),
    );
    const streams = ids.map((id) => runtime.stream(id));
    for (const stream of streams) {
      t.equal(await stream.closed, 1000);
      t.equal(stream.frames.length, 303);
      t.ok(isGapless(stream));
    }
  });
});

test('A reader that takes nothing is sent away and may come back with its position', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runtime = await startRuntime(database.url, createScriptedRunner(script), { readerStallMs: 2_000 });
  t.teardown(() => runtime.stop());
  const agent_definition = { tokens: 20_000, size: 1000 };
  await runtime.invoke(jobOf({ job_id: 'stuck', agent_definition }));
  const stuck = runtime.stream('stuck');
  await stuck.until((frame) => frame.seq === 1);
  stuck.socket.pause();
  for (;;) {
    const { body } = await runtime.request('/metrics');
    if (String(body).includes('readers_closed_total{reason="stalled"} 1')) break;
    await sleep(20);
  }
  stuck.socket.resume();
  t.equal(await stuck.closed, 1006, 'the connection is cut: a close frame would wait with the rest');
  const last = stuck.frames.at(-1)?.seq ?? 0;
  const back = runtime.stream('stuck', `?after=${last}&epoch=1`);
  t.equal(await back.closed, 1000);
  t.ok(isGapless(back, last + 1));
  t.equal(back.frames.at(-1)?.event_type, 'end');
});

test('Events are kept within a budget for the whole process', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const runtime = await startRuntime(database.url, createScriptedRunner(script), {
    eventLogBytes: 300_000,
  });
  t.teardown(() => runtime.stop());
  const agent_definition = { tokens: 100, size: 1000 };

  await t.test('the oldest finished log goes first; its run is then told as one epoch more', async (t) => {
    for (const job_id of ['oldest', 'middle', 'newest']) {
      await runtime.invoke(jobOf({ job_id, agent_definition }));
      await runtime.finished(job_id);
    }
    const oldest = runtime.stream('oldest');
    await oldest.closed;
    t.same(
      oldest.frames.map((frame) => frame.event_type),
      ['on_open', 'on_state_update', 'end'],
    );
    t.equal(oldest.frames[0]?.data.epoch, 2);
    const newest = runtime.stream('newest');
    await newest.closed;
    t.equal(newest.frames.length, 103);
    t.equal(newest.frames[0]?.data.epoch, 1);
  });

  await t.test('a run that alone is over it loses its beginning, and says so', async (t) => {
    await runtime.invoke(
      jobOf({ job_id: 'endless', agent_definition: { tokens: 2000, size: 1000, pause: 5 } }),
    );
    await runtime.finished('endless');
    const stream = runtime.stream('endless');
    await stream.closed;
    const first = stream.frames[1]?.seq ?? 0;
    t.ok(first > 1000);
    t.equal(stream.frames[0]?.data.first_seq, first);
    t.ok(isGapless(stream, first));
    t.equal(stream.frames.at(-1)?.event_type, 'end');
  });

  await t.test('a reader whose next event went is sent away', async (t) => {
    const agent_definition = { tokens: 20_000, size: 1000, pause: 2, held: 1 };
    await runtime.invoke(jobOf({ job_id: 'behind', agent_definition }));
    const stream = runtime.stream('behind');
    await stream.until((frame) => frame.event_type === 'on_open');
    stream.socket.send(JSON.stringify({ type: 'message', content: 'begin' }));
    await stream.until((frame) => frame.seq === 1);
    stream.socket.pause();
    await runtime.finished('behind');
    stream.socket.resume();
    t.equal(await stream.closed, 1013);
    t.ok(isGapless(stream), 'without a silent hole');
    const { body } = await runtime.request('/metrics');
    t.ok(String(body).includes('readers_closed_total{reason="log_dropped"} 1'));
  });
});
