import { sql } from 'slonik';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { purgeExpired } from '../../src/db/retention.js';
import { startOrchestrator } from '../support/orchestrator-process.js';
import {
  createClient,
  type Replica,
  startRefinement,
  testSecret,
  untilStatus,
  type Watcher,
} from '../support/replica.js';
import type { ScriptedThread } from '../support/scripted-thread.js';
import { eventually } from '../support/until.js';
import { createHouse, type House, numberedTexts } from './support/house.js';

/** Room for some 30 frames of a run, and threads that are forgotten at once. */
const tiny = { window: { threadBytes: 4_096 }, runs: { idleActorMs: 1 } };
const nothing = z.object({});

function speak(thread: ScriptedThread, frames: number): void {
  for (let count = 0; count < frames; count++) thread.push('on_llm_stream', { content: 'x'.repeat(80) });
}

/** 300 frames, of which the window has lost the first: what comes in one read, it keeps or drops as a whole. */
async function speakAway(thread: ScriptedThread, watcher: Watcher): Promise<void> {
  for (const count of [150, 300]) {
    speak(thread, 150);
    await watcher.until('on_llm_stream', count);
  }
}

const from = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** A viewer that comes with a position gets all that follows, as the one that was there from the start got it. */
async function sameFrom(t: Test, on: Replica, threadId: string, seen: Watcher, after: number) {
  const back = await on.watch('ann', threadId, { after, epoch: '1.1' });
  t.equal((await back.closed).code, 1000);
  t.match(back.frames[0], {
    event_type: 'on_subscribed',
    data: { recovery: 'exact', epoch: '1.1', first_seq: after + 1, last_seq: seen.numbers().at(-1) },
  });
  t.strictSame(numberedTexts(back), numberedTexts(seen).slice(after));
}

const forgotten = (replica: Replica) =>
  eventually('no thread in memory', () => replica.service.threads() === 0);

const isComplete = (house: House, proposalId: string) =>
  house.pool.oneFirst(sql.type(z.object({ complete: z.boolean() }))`
    SELECT transcript_due_at IS NULL AS complete FROM proposals WHERE id = ${proposalId}`);

t.test('while a run lives, a position that has left the window is exact, on every replica', async (t) => {
  const house = await createHouse(t, {}, tiny);
  const { threadId, thread, watcher } = await house.running();
  await speakAway(thread, watcher);
  const other = await house.more();
  const viewers = await Promise.all(
    [house.replica, house.replica, other].map((replica) =>
      replica.watch('ann', threadId, { after: 7, epoch: '1.1' }),
    ),
  );
  await Promise.all(viewers.map((viewer) => viewer.until('on_llm_stream', 293)));
  speak(thread, 1);
  thread.pushFiles({ '/a.md': 'two' });
  thread.end();
  for (const viewer of viewers) {
    await viewer.closed;
    t.match(viewer.frames[0], { data: { recovery: 'exact', first_seq: 8 } });
    t.strictSame(viewer.numbers(), from(8, 303));
    t.notOk(viewer.kinds().includes('on_skipped'));
  }
  t.match(await house.replica.metrics.render(), /stream_resumes_total\{recovery="exact"\} 2/);
});

t.test(
  'a position on a finished proposal is exact, whoever is asked, and no stream is opened for it (rule 18)',
  async (t) => {
    const house = await createHouse(t, {}, tiny);
    const other = await house.more();
    for (const frames of [10, 300]) {
      const { proposalId, threadId, thread, watcher } = await house.running();
      speak(thread, frames);
      thread.pushFiles({ '/a.md': 'two' });
      speak(thread, 1);
      thread.end();
      await watcher.closed;
      await eventually('a whole transcript', () => isComplete(house, proposalId));
      await forgotten(house.replica);
      const opened = house.runtime.requestsOf('stream').length;
      await sameFrom(t, house.replica, threadId, watcher, 3);
      await sameFrom(t, other, threadId, watcher, 0);
      await sameFrom(t, other, threadId, watcher, frames + 2);
      const late = await other.watch('ann', threadId);
      await late.closed;
      t.strictSame(numberedTexts(late), numberedTexts(watcher), 'without a position all of it comes');
      t.equal(house.runtime.requestsOf('stream').length, opened);
    }
  },
);

t.test(
  'a reader whose own stream has brought nothing gives all of it before the end (rules 10, 18)',
  async (t) => {
    const house = await createHouse(t);
    const other = await house.more();
    const { threadId, thread, watcher } = await house.running();
    speak(thread, 10);
    await watcher.until('on_llm_stream', 10);
    house.runtime.script.upgrade = () => 'hang';
    const reader = await other.watch('ann', threadId);
    await reader.until('on_subscribed');
    thread.pushFiles({ '/a.md': 'two' });
    speak(thread, 2);
    thread.end();
    t.equal((await reader.closed).code, 1000);
    t.strictSame(numberedTexts(reader), numberedTexts(watcher));
    t.notOk(reader.kinds().includes('on_skipped'));
  },
);

t.test('once the transcript is gone a position is compacted, and the last frames are there', async (t) => {
  const house = await createHouse(t, {}, tiny);
  const { threadId, thread, watcher } = await house.running();
  speak(thread, 10);
  thread.pushFiles({ '/a.md': 'two' });
  speak(thread, 2);
  thread.end();
  await watcher.closed;
  await forgotten(house.replica);
  const gone = await purgeExpired(house.pool, { transcriptsMs: 0, keysMs: 1_000_000 });
  t.equal(gone.transcripts, 1);
  const back = await house.replica.watch('ann', threadId, { after: 4, epoch: '1.1' });
  await back.closed;
  t.match(back.frames, [
    { event_type: 'on_subscribed', data: { recovery: 'compacted', last_seq: 14 } },
    { event_type: 'on_skipped', data: { first_seq: 5, last_seq: 10 } },
    { seq: 11, event_type: 'on_state_update' },
    { event_type: 'on_skipped', data: { first_seq: 12, last_seq: 13 } },
    { seq: 14, event_type: 'end' },
  ]);
  t.strictSame(
    numberedTexts(back),
    [11, 14].map((seq) => numberedTexts(watcher)[seq - 1]),
  );
});

t.test(
  'kill -9 between the end and its transcript: another replica completes it, and only then cleans up (rule 18)',
  async (t) => {
    const house = await createHouse(t, {}, tiny);
    const { databaseUrl, runtime } = house;
    await house.replica.stop();
    const owner = await startOrchestrator(t, {
      databaseUrl,
      runtimeUrl: runtime.url,
      secret: testSecret,
      more: { WINDOW_THREAD_BYTES: '4096' },
    });
    const client = createClient(t, owner.url);
    const { proposalId, threadId } = await startRefinement(client, 'ann');
    const watcher = await client.watch('ann', threadId);
    const thread = runtime.threads.get(threadId) as ScriptedThread;
    await speakAway(thread, watcher);
    // The runtime opens no other stream: what the window has lost cannot be had now.
    runtime.script.upgrade = () => ({ status: 503 });
    thread.fail('model_error', 'No.', false);
    t.equal((await watcher.closed).code, 1000, 'the end does not wait for it');
    await untilStatus(client, proposalId, 'failed');
    await owner.kill('SIGKILL');
    const wait = await house.pool.oneFirst(sql.type(z.object({ wait: z.number() }))`
      SELECT round(extract(epoch FROM o.due_at - a.ended_at))::integer AS wait
      FROM outbox o JOIN attempts a USING (job_id) WHERE job_id = ${threadId}`);
    t.equal(wait, 60, 'the clean-up is put off');
    delete runtime.script.upgrade;
    const heir = await house.more();
    await house.pool.query(sql.type(nothing)`
      UPDATE proposals SET transcript_due_at = now() - interval '1 second' WHERE id = ${proposalId}`);
    await eventually('a whole transcript', () => isComplete(house, proposalId));
    await runtime.untilRequest('cleanup');
    await sameFrom(t, heir, threadId, watcher, 5);
  },
);

t.test('a clean-up whose transcript cannot be had is delivered all the same (rule 18)', async (t) => {
  const house = await createHouse(t, {}, tiny);
  const { threadId, thread, watcher } = await house.running();
  await speakAway(thread, watcher);
  house.runtime.script.upgrade = () => ({ status: 503 });
  thread.fail('model_error', 'No.', false);
  await watcher.closed;
  t.equal(house.runtime.requestsOf('cleanup').length, 0);
  // As after 60 s.
  await house.pool.query(sql.type(nothing)`UPDATE outbox SET due_at = now() WHERE job_id = ${threadId}`);
  await house.runtime.untilRequest('cleanup');
  await forgotten(house.replica);
  const back = await house.replica.watch('ann', threadId, { after: 5, epoch: '1.1' });
  await back.closed;
  t.match(back.frames.slice(0, 2), [
    { data: { recovery: 'compacted' } },
    { event_type: 'on_skipped', data: { first_seq: 6 } },
  ]);
  t.strictSame(back.numbers(), from(back.numbers()[0] ?? 0, 302), 'what the window had is there');
});
