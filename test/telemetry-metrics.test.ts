import { test } from 'tap';
import { createMetrics, setCounts } from '../src/telemetry/metrics.js';

/** protocol.md §4, as it stands there. */
const contract = `refinements_started_total · refinement_duration_seconds{status} · proposals{status} ·
proposals_resolved_total{resolution} · proposal_failures_total{code} · active_users{window} · websocket_connections ·
websocket_frames_sent_total{event_type} · websocket_frames_merged_total · websocket_slow_closes_total ·
websocket_closes_total{code} · stream_resumes_total{recovery} · rate_limited_total{scope} ·
deepagents_runtime_requests_total{endpoint,status} · deepagents_runtime_request_duration_seconds{endpoint} ·
circuit_state{circuit} · actors{state} · actor_transitions_total{from,to} · db_query_duration_seconds{query} · outbox_pending ·
threads_taken_over_total · http_requests_total{method,route,status} · http_request_duration_seconds{method,route}`;

/** Beyond the contract: every step of a slow viewer is counted (P3), and what a clean-up may wait for. */
const ours = ['websocket_frames_left_out_total', 'websocket_slow_steps_total', 'transcripts_incomplete'];

const promised = contract.split('·').map((each) => {
  const [, name = '', labels] = /^(\w+)(?:\{([\w,]+)\})?$/.exec(each.trim()) ?? [];
  return { name, labels: labels?.split(',') ?? [] };
});

function camelCase(name: string): string {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

test('every metric of the contract is there under its name, with its labels and no others', async (t) => {
  const metrics = createMetrics({ processMetrics: false });
  const text = await metrics.render();
  t.equal(promised.length, 23);
  for (const { name, labels } of promised) {
    t.ok(text.includes(`# TYPE ide_orchestrator_${name} `), name);
    const metric = (metrics as unknown as Record<string, { labelNames: string[] }>)[camelCase(name)];
    t.same(metric?.labelNames, labels, `labels of ${name}`);
  }
  for (const name of ours) t.ok(text.includes(`# TYPE ide_orchestrator_${name} `), name);
  t.equal(text.match(/^# TYPE /gm)?.length, promised.length + ours.length, 'and nothing else');
});

test('each registry is its own, and the process metrics keep their usual names', async (t) => {
  const [first, second] = [createMetrics(), createMetrics({ processMetrics: false })];
  first.refinementsStartedTotal.inc();
  t.match(await first.render(), /^ide_orchestrator_refinements_started_total 1$/m);
  t.match(await first.render(), /^process_cpu_seconds_total /m);
  t.match(await second.render(), /^ide_orchestrator_refinements_started_total 0$/m);
  t.match(first.contentType, /text\/plain/);
});

test('gauges of the database are read when somebody asks, and a reader that fails spoils nothing', async (t) => {
  const errors: Error[] = [];
  const metrics = createMetrics({ processMetrics: false, onError: (error) => errors.push(error) });
  let pending = 3;
  metrics.onCollect(async () => metrics.outboxPending.set(pending));
  metrics.onCollect(() => {
    throw new Error('the database is away');
  });
  metrics.onCollect(() =>
    setCounts(metrics.proposals, 'status', { processing: pending }, ['processing', 'completed']),
  );
  t.match(await metrics.render(), /^ide_orchestrator_outbox_pending 3$/m);
  pending = 4;
  const text = await metrics.render();
  t.match(text, /^ide_orchestrator_outbox_pending 4$/m);
  t.match(text, /^ide_orchestrator_proposals\{status="processing"\} 4$/m);
  t.match(text, /^ide_orchestrator_proposals\{status="completed"\} 0$/m);
  t.match(errors, [{ message: 'the database is away' }, { message: 'the database is away' }]);
  t.match(await createMetrics({ processMetrics: false }).render(), /outbox_pending 0/);
});
