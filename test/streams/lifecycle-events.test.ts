import { Subject } from 'rxjs';
import { test } from 'tap';
import { createLifecycleEvents } from '../../src/streams/lifecycle-events.js';
import type { LifecycleFact, StreamSignal } from '../../src/streams/stream-signals.js';
import { numberedBatch } from '../support/frames.js';

function listen() {
  const lifecycle = createLifecycleEvents();
  const signals = new Subject<StreamSignal>();
  const facts: LifecycleFact[] = [];
  const heard = { completed: false, error: null as unknown };
  lifecycle.facts(signals).subscribe({
    next: (fact) => facts.push(fact),
    complete: () => {
      heard.completed = true;
    },
    error: (error) => {
      heard.error = error;
    },
  });
  const frames = (...given: { seq: number; kind?: string; data?: unknown }[]) =>
    signals.next({ type: 'frames', batch: numberedBatch(given) });
  return { lifecycle, signals, facts, heard, frames };
}

const error = { code: 'model_failed', message: 'No.', retryable: false };
const epoch = { type: 'epoch', epoch: '1.2', runtimeEpoch: 2, reset: true, reason: 'x', lastSeq: 0 } as const;

test('an end alone is a run that ended, and nothing after it counts', async (t) => {
  const { facts, heard, frames, lifecycle } = listen();
  frames({ seq: 1 }, { seq: 2, kind: 'end', data: {} }, { seq: 3, kind: 'error', data: error });
  t.match(facts, [{ type: 'runtime.ended', ending: { endNumber: 2, error: null, state: null } }]);
  t.equal(heard.completed, true);
  t.equal(lifecycle.ended(), true);
});

test('an error and then the end is a run that failed, with both numbers and the error’s bytes', async (t) => {
  const { facts, frames } = listen();
  frames({ seq: 4, kind: 'error', data: error });
  t.equal(facts.length, 0, 'the error alone waits for the end');
  frames({ seq: 5, kind: 'end', data: {} });
  t.match(facts, [{ type: 'runtime.failed', error, ending: { errorNumber: 4, endNumber: 5 } }]);
  const [fact] = facts;
  const bytes = fact?.type === 'runtime.failed' ? fact.ending.errorBytes : null;
  t.match(JSON.parse(String(bytes)), { seq: 4, event_type: 'error', data: error });
});

test('an error and then nothing more is a run that failed', async (t) => {
  const { facts, signals, frames, lifecycle } = listen();
  frames({ seq: 4, kind: 'error', data: error });
  t.equal(lifecycle.ended(), true, 'no other connection is worth it');
  signals.complete();
  t.match(facts, [{ type: 'runtime.failed', error, ending: { errorNumber: 4, endNumber: 0 } }]);
});

test('an error that says nothing readable is still an error', async (t) => {
  const { facts, frames } = listen();
  frames({ seq: 1, kind: 'error', data: 'x' }, { seq: 2, kind: 'end' });
  t.match(facts, [{ type: 'runtime.failed', error: { code: 'runtime_error' } }]);
  const odd = listen();
  odd.frames(
    { seq: 1, kind: 'error', data: { code: 7, message: ['x'], retryable: false } },
    { seq: 2, kind: 'end' },
  );
  t.match(
    odd.facts,
    [{ error: { code: 'runtime_error', retryable: false } }],
    'what is readable of it counts',
  );
});

test('where the stream did not tell, the state does', async (t) => {
  const stateOf = (state: object) => {
    const { facts, signals } = listen();
    signals.next({ type: 'state', state: { thread_id: 't', status: 'completed', ...state } });
    return facts[0];
  };
  t.match(stateOf({ generated_files: {} }), {
    type: 'runtime.ended',
    ending: { endNumber: 0, state: { status: 'completed' } },
  });
  t.match(stateOf({ status: 'failed', error }), { type: 'runtime.failed', error });
  t.match(stateOf({ status: 'failed' }), { type: 'runtime.failed', error: { code: 'runtime_error' } });
});

test('a log that begins anew takes back an error of the one before', async (t) => {
  const { facts, signals, frames, lifecycle } = listen();
  frames({ seq: 1, kind: 'error', data: error });
  signals.next(epoch);
  t.equal(lifecycle.ended(), false);
  frames({ seq: 1 }, { seq: 2, kind: 'end', data: {} });
  t.match(facts, [{ type: 'runtime.opened', epoch: '1.2', runtimeEpoch: 2 }, { type: 'runtime.ended' }]);
});

test('lost, unknown and oversized are told, and the last two end it', async (t) => {
  for (const type of ['unknown', 'oversized'] as const) {
    const { facts, signals, heard } = listen();
    signals.next({ type: 'lost' });
    signals.next({ type: 'unreadable' });
    signals.next({ type: 'skipped', first: 1, last: 2 });
    t.equal(heard.completed, false);
    signals.next({ type });
    t.match(facts, [{ type: 'runtime.lost' }, { type: `runtime.${type}` }]);
    t.equal(heard.completed, true);
  }
});

test('a fault of the stream is passed on', async (t) => {
  const { signals, heard } = listen();
  const fault = new Error('broken');
  signals.error(fault);
  t.equal(heard.error, fault);
});
