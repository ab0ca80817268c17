import t from 'tap';
import { sampleWorkflow } from '../../scripts/refine/sample-specification.js';
import { createTestDatabase } from '../support/database.js';
import { createRealRuntime } from '../support/real-runtime.js';
import { createReplica, startRefinement, untilStatus } from '../support/replica.js';

const { files } = sampleWorkflow;
const wish = 'Add web search capability to the GreetingAgent';

t.test('on the real runtime', async (t) => {
  const { url: databaseUrl } = await createTestDatabase(t);
  const runtime = await createRealRuntime(t, 2);
  const replica = await createReplica(t, { databaseUrl, runtimeUrl: runtime.url });
  const get = async (user: string, path: string) => (await replica.call(user, 'GET', path)).body;

  await t.test('a prompt becomes an approved draft, a version and a deployment', async (t) => {
    const { workflowId, proposalId, threadId } = await startRefinement(replica, 'ann', files, wish);
    const watcher = await replica.watch('ann', threadId);
    const end = await watcher.until('end');
    t.equal((await get('ann', `/api/proposals/${proposalId}`)).status, 'completed', 'end means committed');
    t.strictSame(
      watcher.numbers(),
      Array.from({ length: watcher.numbers().length }, (_, index) => index + 1),
      'every number once',
    );
    t.ok(watcher.kinds().includes('on_llm_stream'));
    t.ok(Object.keys(end.data.files).includes('/definition.json'));
    const diff = await get('ann', `/api/proposals/${proposalId}/diff`);
    t.ok(diff.files.some((file: { status: string }) => file.status === 'modified'));
    const approved = await replica.call('ann', 'POST', `/api/proposals/${proposalId}/approve`);
    t.equal(approved.status, 200);
    t.ok(approved.body.files_applied > 0);
    const version = await replica.call('ann', 'POST', `/api/workflows/${workflowId}/versions`);
    t.match(version, { status: 201, body: { version_number: 1 } });
    const deployed = await replica.call('ann', 'POST', `/api/workflows/${workflowId}/deploy`, {
      version_number: 1,
    });
    t.match(deployed, { status: 200, body: { production_version: 1 } });
    const published = await get('ann', `/api/workflows/${workflowId}/versions/1`);
    t.match(published.files['/definition.json'].content, /web_search/);
  });

  await t.test('several proposals run on one draft and are decided one by one', async (t) => {
    const first = await startRefinement(replica, 'ann', files, wish);
    const path = `/api/workflows/${first.workflowId}/refinements`;
    const second = await replica.call('ann', 'POST', path, {
      user_prompt: 'Add e-mail sending to the GreetingAgent',
    });
    t.equal(second.status, 202);
    const ids = [first.proposalId, second.body.proposal_id as string];
    for (const id of ids) await untilStatus(replica, id, 'completed');
    t.equal((await replica.call('ann', 'POST', `/api/proposals/${ids[0]}/approve`)).status, 200);
    const conflict = await replica.call('ann', 'POST', `/api/proposals/${ids[1]}/approve`);
    t.match(conflict, { status: 409, body: { code: 'proposal_conflict' } });
    t.ok(conflict.body.conflicts.includes('/definition.json'));
    const resolutions = Object.fromEntries(conflict.body.conflicts.map((each: string) => [each, 'proposal']));
    const decided = await replica.call('ann', 'POST', `/api/proposals/${ids[1]}/approve`, { resolutions });
    t.equal(decided.status, 200);
    const draft = await get('ann', `/api/workflows/${first.workflowId}/draft`);
    t.match(draft.body ?? draft, { revision: 3 });
  });

  await t.test('a run that fails for good is told, and can be tried again', async (t) => {
    const { proposalId, threadId } = await startRefinement(replica, 'ann', files, 'Add tea [[fail:fatal]]');
    const watcher = await replica.watch('ann', threadId);
    t.match(await watcher.until('end'), { data: { status: 'failed' } });
    const failed = await get('ann', `/api/proposals/${proposalId}`);
    t.equal(failed.status, 'failed');
    t.ok(failed.error.message.length > 0);
    const again = await replica.call('ann', 'POST', `/api/proposals/${proposalId}/retry`);
    t.equal(again.status, 202);
    t.not(again.body.proposal_id, proposalId);
    await untilStatus(replica, again.body.proposal_id, 'failed');
  });

  await t.test('two users see nothing of each other', async (t) => {
    const { workflowId, proposalId, threadId } = await startRefinement(replica, 'ann', files, wish);
    for (const [method, path] of [
      ['GET', `/api/workflows/${workflowId}`],
      ['GET', `/api/workflows/${workflowId}/draft`],
      ['GET', `/api/workflows/${workflowId}/proposals`],
      ['GET', `/api/proposals/${proposalId}`],
      ['GET', `/api/proposals/${proposalId}/diff`],
      ['GET', `/api/proposals/${proposalId}/audit`],
      ['POST', `/api/proposals/${proposalId}/approve`],
      ['POST', `/api/proposals/${proposalId}/reject`],
      ['POST', `/api/proposals/${proposalId}/cancel`],
      ['POST', `/api/proposals/${proposalId}/retry`],
      ['DELETE', `/api/workflows/${workflowId}`],
    ] as const) {
      t.equal((await replica.call('eve', method, path)).status, 404, `${method} ${path}`);
    }
    const ticket = await replica.call('eve', 'POST', '/api/ws/tickets', { thread_id: threadId });
    t.equal(ticket.status, 404);
    await t.rejects(replica.watch('eve', threadId), /404/);
    t.strictSame((await get('eve', '/api/workflows')).items, []);
    await untilStatus(replica, proposalId, 'completed');
  });

  await t.test('a runtime that is killed in the middle of a run goes on in a new epoch', async (t) => {
    const { proposalId, threadId } = await startRefinement(replica, 'ann', files, `${wish} [[slow:40]]`);
    const watcher = await replica.watch('ann', threadId);
    await watcher.until('on_llm_stream', 30);
    await runtime.kill();
    t.match(await watcher.until('on_reset'), { data: { epoch: '1.2' } });
    await watcher.until('end');
    const proposal = await get('ann', `/api/proposals/${proposalId}`);
    t.match(proposal, { status: 'completed', attempt: 1 });
    t.match(proposal.generated_files['/definition.json'].content.join('\n'), /web_search/);
  });
});
