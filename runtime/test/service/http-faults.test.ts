import { connect } from 'node:net';
import { test } from 'tap';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { eventually } from '../support/eventually.js';
import { briefScript, createScriptedRunner } from '../support/scripted-runner.js';
import { jobOf, startRuntime } from '../support/test-runtime.js';

const json = { 'content-type': 'application/json' };

/** The status line that the server answers to exactly these bytes; empty where it closes without one. */
function raw(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    let answer = '';
    socket.on('data', (chunk) => {
      answer += String(chunk);
      socket.end();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer.split('\r\n')[0] ?? ''));
  });
}

test('What cannot be a job is refused with a code and a message', async (t) => {
  const database = await createTestDatabase();
  t.teardown(() => database.drop());
  const gate = await createDatabaseGate(database.url);
  t.teardown(() => gate.stop());
  const runner = createScriptedRunner(briefScript);
  const runtime = await startRuntime(gate.url, runner);
  t.teardown(() => runtime.stop());
  const post = (
    body: string | Buffer,
    headers: Record<string, string> = json,
    path = '/deepagents-runtime/invoke',
  ) => runtime.request(path, { method: 'POST', headers, body });
  const event = (changes: Record<string, unknown> = {}) => ({
    specversion: '1.0',
    id: '1',
    source: '/test',
    type: 'agent.execute',
    datacontenttype: 'application/json',
    data: jobOf(),
    ...changes,
  });
  const structured = { 'content-type': 'application/cloudevents+json' };
  const binary = {
    ...json,
    'ce-id': '1',
    'ce-source': '/t',
    'ce-specversion': '1.0',
    'ce-type': 'agent.execute',
  };

  await t.test('another media type is 415', async (t) => {
    t.match(await post('x', { 'content-type': 'text/plain' }), {
      status: 415,
      body: { code: 'unsupported_media_type' },
    });
    t.equal((await post(Buffer.from('{}'), {})).status, 415);
  });

  await t.test('broken JSON, and keys that would change prototypes, are 400', async (t) => {
    for (const body of ['{', '', '{"__proto__":{"a":1}}'])
      t.match(await post(body), { status: 400, body: { code: 'malformed_json' } }, body);
  });

  await t.test('a body that breaks the schema is 422 and says where', async (t) => {
    const { body, status } = await post(JSON.stringify(jobOf({ job_id: '', surplus: 1 })));
    t.equal(status, 422);
    t.match(body, { code: 'validation_failed', message: /job_id/ });
    t.match(body, { message: /surplus/ });
    t.equal((await post('[]')).status, 422);
  });

  await t.test('text that no database takes is 422 and says where', async (t) => {
    const input_payload = { messages: [{ role: 'user', content: 'a\u0000b' }] };
    t.match(await post(JSON.stringify(jobOf({ input_payload }))), {
      status: 422,
      body: {
        code: 'validation_failed',
        message: /^input_payload\.messages\.0\.content must not contain U\+0000/,
      },
    });
    const agent_definition = { deep: [{ '\ud800': 1 }] };
    t.equal((await post(JSON.stringify(jobOf({ agent_definition })))).status, 422);
    t.equal((await post(JSON.stringify(jobOf({ job_id: 'a\u0000' })))).status, 422);
  });

  await t.test('text that only looks like an escape is taken', async (t) => {
    const input_payload = { messages: [{ role: 'user', content: 'a\\u0000b' }] };
    t.equal((await post(JSON.stringify(jobOf({ input_payload })))).status, 200);
  });

  await t.test(
    'what the agents refuse is told with their code where it is one of the contract',
    async (t) => {
      const refuse = (error: Error): void => {
        runner.onCheck = () => {
          throw error;
        };
      };
      refuse(Object.assign(new Error('no such provider'), { code: 'invalid_model' }));
      t.match(await post(JSON.stringify(jobOf())), {
        status: 422,
        body: { code: 'invalid_model', message: 'no such provider' },
      });
      refuse(Object.assign(new Error('no nodes'), { code: 'invalid_definition' }));
      t.match(await post(JSON.stringify(jobOf())), {
        status: 422,
        body: { code: 'validation_failed', message: 'no nodes' },
      });
      runner.onCheck = () => {};
    },
  );

  await t.test('a body over 32 MiB is 413, announced or not', async (t) => {
    const big = Buffer.alloc(32 * 1024 * 1024 + 1, 32);
    const announced = await raw(
      runtime.port,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${big.length}\r\n\r\n`,
    );
    t.match(announced, /^HTTP\/1\.1 413/);
    let seen = 0;
    const stream = new ReadableStream({
      pull(controller) {
        seen += 1024 * 1024;
        controller.enqueue(big.subarray(0, 1024 * 1024));
        if (seen > big.length) controller.close();
      },
    });
    const chunked = await fetch(`${runtime.url}/deepagents-runtime/invoke`, {
      method: 'POST',
      headers: json,
      body: stream,
      duplex: 'half',
    } as RequestInit).then(
      (response) => response.status,
      () => 'cut',
    );
    t.ok([413, 'cut'].includes(chunked));
    t.equal((await runtime.request('/health')).status, 200);
  });

  await t.test('headers that two readers would understand differently are 400', async (t) => {
    const head = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
    for (const lines of [
      'Content-Length: 2\r\nContent-Length: 3\r\n',
      'Host: y\r\nContent-Length: 2\r\n',
      'Transfer-Encoding: gzip\r\n',
    ])
      t.match(await raw(runtime.port, `${head}${lines}\r\n{}`), /^(HTTP\/1\.1 400|$)/, lines);
    t.equal((await runtime.request('/health')).status, 200);
  });

  await t.test('a caller who leaves in the middle of a body harms nobody', async (t) => {
    await new Promise<void>((resolve) => {
      const socket = connect(runtime.port, '127.0.0.1', () => {
        socket.write(
          'POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{',
        );
        setTimeout(() => socket.destroy(), 30);
      });
      socket.on('close', () => resolve());
    });
    t.equal((await runtime.request('/health')).status, 200);
  });

  await t.test('a CloudEvent is a job, structured or binary, on both addresses', async (t) => {
    for (const path of ['/', '/deepagents-runtime/invoke']) {
      const job = jobOf();
      t.same((await post(JSON.stringify(event({ data: job })), structured, path)).body, {
        thread_id: job.job_id,
        status: 'started',
      });
      const other = jobOf();
      t.same((await post(JSON.stringify(other), binary, path)).body, {
        thread_id: other.job_id,
        status: 'started',
      });
    }
  });

  await t.test('an event of another type or shape is 400', async (t) => {
    for (const body of [
      event({ type: 'agent.other' }),
      event({ source: undefined }),
      event({ specversion: '9' }),
    ])
      t.match(await post(JSON.stringify(body), structured), {
        status: 400,
        body: { code: 'malformed_event' },
      });
    const batch = { 'content-type': 'application/cloudevents-batch+json' };
    t.match(await post(JSON.stringify([event()]), batch), { status: 400, body: { code: 'malformed_event' } });
    t.equal((await post('{', structured)).status, 400);
    t.match(await post(JSON.stringify(event({ data: { job_id: 1 } })), structured), {
      status: 422,
      body: { code: 'validation_failed' },
    });
  });

  await t.test('health, readiness and metrics answer', async (t) => {
    t.same((await runtime.request('/health')).body, { status: 'ok' });
    t.same((await runtime.request('/ready')).body, { status: 'ready', database: 'ok' });
    const { body } = await runtime.request('/metrics');
    for (const line of [
      'deepagents_runtime_runs{status="completed"}',
      'deepagents_runtime_run_duration_seconds_count{status="completed"}',
      'deepagents_runtime_queue_length 0',
      'deepagents_runtime_events_total{event_type="on_llm_stream"}',
      'deepagents_runtime_http_requests_total{method="POST",route="/deepagents-runtime/invoke",status="200"}',
    ])
      t.ok(String(body).includes(line), line);
  });

  await t.test('while PostgreSQL is away everything but health says 503, and metrics go on', async (t) => {
    gate.close();
    t.equal((await runtime.request('/health')).status, 200);
    const ready = await runtime.request('/ready');
    t.match(ready, { status: 503, body: { code: 'not_ready' } });
    t.equal(ready.headers.get('retry-after'), '1');
    t.match(await post(JSON.stringify(jobOf())), { status: 503, body: { code: 'not_ready' } });
    t.equal((await runtime.state('x')).status, 503);
    t.equal(await runtime.cancel('x'), 503);
    t.equal((await runtime.cleanUp('x')).status, 503);
    t.equal(await runtime.refused('x'), 503);
    t.equal((await runtime.request('/metrics')).status, 200);
    await gate.open();
    await eventually('ready', async () => (await runtime.request('/ready')).status === 200);
  });
});
