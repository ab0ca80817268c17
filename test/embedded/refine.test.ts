import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type RefineOptions, refine } from '../../scripts/refine/refine.js';
import { eventually } from '../support/until.js';
import { type Step, startScriptedOrchestrator, subscribed } from './scripted-orchestrator.js';

const id = randomUUID();
const token = (seq: number, content: string) => ({
  seq,
  event_type: 'on_llm_stream',
  data: { content, node: 'agent', message_id: 'm1' },
});
const state = (seq: number, text: string, more = {}) => ({
  seq,
  event_type: 'on_state_update',
  data: {
    files: { '/THE_CAST/GreetingAgent.md': { content: text.split('\n'), created_at: '', modified_at: '' } },
    ...more,
  },
});
const end = (seq: number, status = 'completed') => ({
  seq,
  event_type: 'end',
  data: { proposal_id: id, status, files: {}, warnings: [] },
});
const todos = [
  { content: 'Read the specification', status: 'completed' },
  { content: 'Add the tool', status: 'in_progress' },
];
const wholeRun: Step[] = [
  subscribed(id),
  token(1, 'Reading '),
  token(2, 'it.'),
  state(3, 'None.', { todos }),
  state(4, 'Web search.'),
  end(5),
  { close: 1000 },
];

const runClient = async (
  t: Test,
  script: Parameters<typeof startScriptedOrchestrator>[0],
  options: Partial<RefineOptions> = {},
  answers: (string | undefined)[] = [],
  giveUpAfterMs = 60_000,
) => {
  const server = await startScriptedOrchestrator(script);
  t.teardown(() => server.stop());
  let output = '';
  const write = (text: string): void => {
    output += text;
  };
  const done = refine(
    { prompt: 'Add web search', url: server.url, token: 'good', approve: true, publish: false, ...options },
    {
      terminal: { write, colours: false },
      ask: async () => answers.shift(),
      retryForMs: 60_000,
      stream: { backoffMs: 10, giveUpAfterMs },
    },
  );
  return { server, done, output: () => output };
};

t.test('a prompt becomes a streamed run, an approved draft and a published version', async (t) => {
  const { server, done, output } = await runClient(t, { connections: [wholeRun] }, { publish: true });
  t.equal(await done, true);
  t.match(output(), 'Made the sample workflow Greeting workflow');
  t.match(output(), 'Reading it.\n', 'tokens flow');
  t.match(output(), '[x] Read the specification\n  [>] Add the tool\n', 'to-dos');
  t.match(output(), '~ /THE_CAST/GreetingAgent.md (1 lines)', 'a file that the draft has');
  t.equal(output().split('GreetingAgent.md (').length, 2, 'a file as the draft has it is not told');
  t.match(output(), '-None.\n+Web search.');
  t.match(output(), 'approved: 1 files applied, draft revision 2\npublished version 3\n');
  t.ok(server.seen.filter((call) => call.method === 'POST').every((call) => call.key !== undefined));
  const made = server.seen.find((call) => call.path === '/api/workflows' && call.method === 'POST');
  t.match(made?.body, {
    files: { '/definition.json': /GreetingAgent/, '/THE_SPEC/constitution.md': String },
  });
});

t.test('a dropped connection is opened again at its position and nothing is shown twice', async (t) => {
  const { server, done, output } = await runClient(t, {
    connections: [
      [subscribed(id), token(1, 'alpha '), token(2, 'beta '), 'drop'],
      [{ refuse: 503 }],
      [subscribed(id), token(2, 'beta '), token(3, 'gamma'), { close: 4408 }],
      [subscribed(id), state(4, 'Web search.'), end(5), { close: 1000 }],
    ],
  });
  t.equal(await done, true);
  t.strictSame(server.positions, ['', '?after=2&epoch=1.1', '?after=2&epoch=1.1', '?after=3&epoch=1.1']);
  for (const word of ['alpha', 'beta', 'gamma']) t.equal(output().split(word).length, 2, word);
});

t.test('a new epoch begins at its own first number', async (t) => {
  const { server, done, output } = await runClient(t, {
    connections: [
      [
        subscribed(id),
        token(1, 'first try'),
        { event_type: 'on_retry', data: { attempt: 2, max: 4, delay_ms: 1, epoch: '2.1' } },
        token(1, 'second try'),
        { event_type: 'on_skipped', data: { first_seq: 2, last_seq: 6 } },
        'drop',
      ],
      [
        subscribed(id, { epoch: '2.1' }),
        { event_type: 'on_reset', data: { epoch: '2.2', reason: 'restarted' } },
        state(1, 'Web search.'),
        end(2),
      ],
    ],
  });
  t.equal(await done, true);
  t.equal(server.positions[1], '?after=6&epoch=2.1');
  t.match(output(), /attempt 2 of 4 follows\nsecond try/);
  t.match(output(), 'goes on from its last saved state');
});

t.test('a failed run is told with its reason and is no success', async (t) => {
  const failed = { code: 'completed_without_files', message: 'The run made no files' };
  const error = { seq: 1, event_type: 'error', data: { ...failed, retryable: false } };
  const { done, output, server } = await runClient(t, {
    failed,
    connections: [[subscribed(id), error, end(2, 'failed'), { close: 1000 }]],
  });
  t.equal(await done, false);
  t.match(output(), 'The refinement failed: The run made no files (completed_without_files)');
  t.notOk(server.seen.some((call) => call.path.endsWith('/approve')));
});

t.test('the person decides: yes approves, no discards, no answer leaves it open', async (t) => {
  const script = { connections: [wholeRun], hasWorkflow: true };
  const options = { approve: false };
  const yes = await runClient(t, script, options, ['what?', 'y']);
  t.equal(await yes.done, true);
  t.match(yes.output(), 'approved');
  const no = await runClient(t, script, options, ['n']);
  t.equal(await no.done, true);
  t.match(no.output(), 'rejected');
  const later = await runClient(t, script, { ...options, publish: true }, [undefined]);
  t.equal(await later.done, false, 'what was to be published was not');
  t.match(later.output(), 'Not decided yet');
});

t.test('a conflict is an error that names the files', async (t) => {
  const { done } = await runClient(t, { connections: [wholeRun], conflict: true });
  await t.rejects(done, { message: /changed on both sides(.|\n)*\/a\.md/ });
});

t.test('a request without an answer is repeated with the same key', async (t) => {
  const { server, done } = await runClient(t, {
    connections: [wholeRun],
    dropOnce: '/refinements',
    hasWorkflow: true,
  });
  t.equal(await done, true);
  const [first, second, ...more] = server.seen.filter((call) => call.path.endsWith('/refinements'));
  t.equal(more.length, 0);
  t.type(first?.key, 'string');
  t.strictSame(second, first);
});

t.test('a refusal for good ends the client at once', async (t) => {
  const gone = await runClient(t, { connections: [[{ refuse: 404 }]] });
  await t.rejects(gone.done, { message: /there is no such refinement/ });
  const expired = await runClient(t, { connections: [[subscribed(id), { close: 4401 }]] });
  await t.rejects(expired.done, { message: /the token has expired/ });
  const away = await runClient(t, { connections: [] }, {}, [], 500);
  await eventually('a connection', () => away.server.positions.length > 0);
  await away.server.stop();
  await t.rejects(away.done, { message: /could not be opened again/ });
});

t.test('what a model writes cannot command the terminal', async (t) => {
  const nasty = token(1, 'a\u001b[2Jb\u0007');
  const { done, output } = await runClient(t, {
    connections: [[subscribed(id), nasty, end(2), { close: 1000 }]],
  });
  await done;
  t.match(output(), 'a[2Jb');
});

t.test('as a command it exits with 0 after the approval and with 1 when something failed', async (t) => {
  const script = fileURLToPath(new URL('../../scripts/refine.js', import.meta.url));
  const server = await startScriptedOrchestrator({ connections: [wholeRun], hasWorkflow: true });
  t.teardown(() => server.stop());
  const run = (...args: string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      const child = execFile(
        process.execPath,
        [script, 'Add web search', '--url', server.url, ...args],
        (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
      );
      child.stdin?.end();
    });
  t.match(await run('--token', 'good', '--approve', '--publish', '--workflow', server.ids.workflow), {
    code: 0,
    stdout: /approved(.|\n)*published version 3/,
  });
  t.match(await run('--token', 'bad', '--approve'), {
    code: 1,
    stderr: /A token is needed \(unauthorized\)/,
  });
  t.match(await run('--approve'), { code: 1, stderr: /needs --token/ });
});
