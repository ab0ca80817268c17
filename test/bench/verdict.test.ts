import tap from 'tap';
import {
  type Comparison,
  faultsOf,
  type Measurement,
  ratiosOf,
  tableOf,
} from '../../bench/relaying/verdict.js';

const measured = (seconds: number, wrong: { lost?: number; cut?: number } = {}): Measurement => ({
  cpu: { user: seconds * 0.75, system: seconds * 0.25, helpers: 0 },
  measured: { from: 0, to: 2e6 },
  bytesPerThread: 20 * 1024,
  report: { frames: 1e6, lost: 0, cut: 0, latency: { p50: 0.5, p99: 4, max: 9 }, ...wrong },
});
const comparison = (orchestrator: Measurement[], relay: Measurement[]): Comparison => ({
  name: 'flooded',
  orchestrator,
  relay,
});

tap.test('A ratio compares what ran in the same round, and the median of the rounds counts', async (t) => {
  const compared = comparison(
    [measured(2), measured(6), measured(2.4)],
    [measured(1), measured(2), measured(2)],
  );
  t.same(ratiosOf(compared), [2, 3, 1.2]);
  t.same(faultsOf(compared, 2), []);
  t.same(faultsOf(compared, 1.9), ['flooded: ratio 2.00 is over 1.9']);
  t.match(tableOf([compared]), /2\.00 \(1\.20–3\.00\)/);
});

tap.test('A lost frame or a viewer that was cut off fails the bench, on either side', async (t) => {
  const compared = comparison([measured(1, { lost: 3 })], [measured(1, { cut: 2 })]);
  t.same(faultsOf(compared, null), [
    'flooded: 3 frames lost by the orchestrator in round 1',
    'flooded: 2 viewers cut off by the relay in round 1',
  ]);
});
