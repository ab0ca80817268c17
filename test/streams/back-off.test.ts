import { test } from 'tap';
import { backOffDelayMs, createBackOff } from '../../src/streams/back-off.js';

test('the bound doubles with each failure up to the longest delay, and a success begins anew', async (t) => {
  const backOff = createBackOff({ baseMs: 100, maxMs: 5_000, random: () => 0.999_999 });
  const delays = Array.from({ length: 8 }, () => backOff.next());
  t.same(delays, [99, 199, 399, 799, 1_599, 3_199, 4_999, 4_999]);
  backOff.reset();
  t.equal(backOff.next(), 99);
});

test('the jitter is full: from nothing to the bound, also after thousands of failures', async (t) => {
  t.equal(backOffDelayMs(3, { baseMs: 100, maxMs: 5_000, random: () => 0 }), 0);
  t.equal(backOffDelayMs(3, { baseMs: 100, maxMs: 5_000, random: () => 0.5 }), 400);
  t.equal(backOffDelayMs(5_000, { baseMs: 100, maxMs: 5_000, random: () => 0.5 }), 2_500);
});
