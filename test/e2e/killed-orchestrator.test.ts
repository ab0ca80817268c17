import pg from 'pg';
import t from 'tap';
import { sampleWorkflow } from '../../scripts/refine/sample-specification.js';
import { createTestDatabase } from '../support/database.js';
import { startOrchestrator } from '../support/orchestrator-process.js';
import { createRealRuntime } from '../support/real-runtime.js';
import { createClient, startRefinement, testSecret, untilStatus } from '../support/replica.js';

t.test('kill -9 of the orchestrator in the middle of a run loses nothing', async (t) => {
  const { url: databaseUrl } = await createTestDatabase(t);
  const runtime = await createRealRuntime(t);
  // A window with room for a few frames: what is behind it is read from the runtime, and then from the transcript.
  const more = { WINDOW_THREAD_BYTES: '4096' };
  const parts = { databaseUrl, runtimeUrl: runtime.url, secret: testSecret, more };
  const first = await startOrchestrator(t, parts);
  const before = createClient(t, first.url);
  const wish = 'Add web search capability to the GreetingAgent [[slow:15]]';
  const { proposalId, threadId } = await startRefinement(before, 'ann', sampleWorkflow.files, wish);
  const seen = await before.watch('ann', threadId);
  await seen.until('on_llm_stream', 20);
  await first.kill('SIGKILL');
  const position = { after: seen.numbers().at(-1) ?? 0, epoch: '1.1' };

  const second = await startOrchestrator(t, parts);
  const after = createClient(t, second.url);
  const back = await after.watch('ann', threadId, position);
  await back.until('end');
  t.match(back.frames[0], { event_type: 'on_subscribed', data: { recovery: 'exact', epoch: '1.1' } });
  const numbers = [...seen.numbers(), ...back.numbers()];
  t.strictSame(
    numbers,
    Array.from({ length: numbers.length }, (_, index) => index + 1),
    'the viewer that comes back with its position has every number once',
  );
  const proposal = await untilStatus(after, proposalId, 'completed');
  t.match(proposal, { attempt: 1 });
  const late = await after.watch('ann', threadId, { after: 2, epoch: '1.1' });
  await late.closed;
  t.match(late.frames[0], { data: { recovery: 'exact', first_seq: 3 } });
  t.strictSame(late.numbers(), numbers.slice(2), 'and so has one that comes back after the end');
  t.match(proposal.generated_files['/definition.json'].content.join('\n'), /web_search/);
  const { body: audit } = await after.call('ann', 'GET', `/api/proposals/${proposalId}/audit`);
  t.ok(
    audit.items.some((item: { event: string }) => item.event === 'taken_over'),
    'the take-over is on record',
  );
  const database = new pg.Client({ connectionString: runtime.databaseUrl });
  await database.connect();
  const { rows } = await database.query('SELECT count(*)::int AS runs FROM runs');
  await database.end();
  t.strictSame(rows, [{ runs: 1 }], 'from one run');

  t.match(await second.kill('SIGTERM'), { code: 0 }, 'a stop by signal ends with 0');
});
