import { setTimeout as wait } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'tap';
import { limitTime } from '../src/time-limit.js';

test('a time limit fires whatever is collected meanwhile, and with the signal around it', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const { signal } = new AbortController();
  const limits = Array.from({ length: 20 }, () => limitTime(signal, 100).signal);
  for (let turn = 0; turn < 20; turn++) {
    collect();
    await wait(10);
  }
  t.strictSame(
    limits.filter((limit) => !limit.aborted),
    [],
  );
  const outer = new AbortController();
  const inner = limitTime(outer.signal, 60_000);
  const ended = limitTime(outer.signal, 60_000);
  ended.end();
  outer.abort(new Error('stop'));
  t.match(inner.signal, { aborted: true, reason: { message: 'stop' } });
  t.equal(ended.signal.aborted, false, 'nobody waits for it any more');
  t.equal(limitTime(outer.signal, 60_000).signal.aborted, true, 'at once, where it is too late');
});
