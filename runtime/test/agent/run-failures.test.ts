import { GraphDrained, GraphRecursionError } from '@langchain/langgraph';
import { test } from 'tap';
import { StoreError } from '../../src/agent/checkpoints.js';
import { causesOf, stopOf } from '../../src/agent/run-failure.js';
import { RunnerError } from '../../src/agent/runner-error.js';

const wrapped = (cause: unknown) => new Error('outer', { cause: new Error('middle', { cause }) });
const failing = (fields: object, message = 'x') => wrapped(Object.assign(new Error(message), fields));

const table: [about: string, thrown: unknown, code: string, retryable: boolean][] = [
  ['a refused key', failing({ status: 401 }), 'model_authentication', false],
  [
    'a missing key',
    wrapped(new Error('Missing credentials. Please pass an apiKey: API key not found')),
    'model_authentication',
    false,
  ],
  ['a limit', failing({ status: 429 }), 'model_rate_limited', true],
  ['an unknown model', failing({ status: 404 }), 'model_not_found', false],
  ['a slow answer', failing({ status: 408 }), 'model_timeout', true],
  ['a broken provider', failing({ status: 503 }), 'model_error', true],
  ['a refused request', failing({ status: 422 }), 'model_rejected', false],
  ['a lost connection', failing({ code: 'ECONNREFUSED' }), 'model_unreachable', true],
  ['a connection error by name', failing({ name: 'APIConnectionError' }), 'model_unreachable', true],
  ['a timeout', failing({ name: 'TimeoutError' }), 'model_timeout', true],
  [
    'too many steps',
    wrapped(new GraphRecursionError('x', { lc_error_code: 'GRAPH_RECURSION_LIMIT' })),
    'recursion_limit',
    false,
  ],
  ['our own error', wrapped(new RunnerError('own', 'm', { retryable: true })), 'own', true],
  [
    'a checkpoint that is refused',
    wrapped(new StoreError(Object.assign(new Error('x'), { code: '22P05' }))),
    'checkpoint_rejected',
    false,
  ],
  ['anything else', wrapped('a string'), 'agent_error', true],
  ['nothing', undefined, 'agent_error', true],
];

for (const [about, thrown, code, retryable] of table) {
  test(`${about} is told as ${code}, retryable: ${retryable}`, async (t) => {
    const stop = stopOf(thrown);
    t.match(stop, { status: 'failed', error: { code, retryable } });
    t.notMatch(stop, { error: { message: /outer|middle|Error/ } });
  });
}

test('A store that is away and a drain interrupt a run', async (t) => {
  const away = Object.assign(new Error('Connection terminated'), { code: '57P01' });
  t.same(stopOf(wrapped(new StoreError(away))), { status: 'interrupted', reason: 'store_unavailable' });
  t.same(stopOf(wrapped(new StoreError('odd'))), { status: 'interrupted', reason: 'store_unavailable' });
  t.same(stopOf(new GraphDrained('x')), { status: 'interrupted', reason: 'drained' });
});

test('A chain of causes that bites its tail ends, and one error of several is looked at', async (t) => {
  const first: Error & { cause?: unknown } = new Error('first');
  first.cause = new Error('second', { cause: first });
  t.equal(causesOf(first).length, 2);
  t.match(stopOf(new AggregateError([Object.assign(new Error('x'), { code: 'ECONNRESET' })])), {
    error: { code: 'model_unreachable' },
  });
});
