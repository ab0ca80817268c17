import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { toError } from '../errors.js';

const prefix = 'ide_orchestrator_';
/** Seconds. A statement, a call to the runtime, a request. */
const callBuckets = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Seconds. A refinement takes a model’s time, not a machine’s. */
const runBuckets = [0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800];

/** `circuit_state`: higher is worse. */
export const circuitStateValues = { closed: 0, half_open: 1, open: 2 } as const;

export type Metrics = ReturnType<typeof createMetrics>;

/**
 * Every metric of protocol.md §4 in a registry of its own: fields are the names without prefix, in camelCase.
 * No label may hold an id. The process metrics keep prom-client's usual names (`process_`, `nodejs_`).
 */
export function createMetrics(options: { processMetrics?: boolean; onError?: (error: Error) => void } = {}) {
  const registry = new Registry();
  const readers: (() => void | Promise<void>)[] = [];
  const counter = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Counter<Label>({ name: `${prefix}${name}`, help, labelNames, registers: [registry] });
  const gauge = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Gauge<Label>({ name: `${prefix}${name}`, help, labelNames, registers: [registry] });
  const histogram = <Label extends string = never>(
    name: string,
    help: string,
    labelNames: Label[],
    buckets: number[],
  ) => new Histogram<Label>({ name: `${prefix}${name}`, help, labelNames, buckets, registers: [registry] });
  if (options.processMetrics ?? true) collectDefaultMetrics({ register: registry });

  return {
    refinementsStartedTotal: counter('refinements_started_total', 'Refinements accepted'),
    refinementDurationSeconds: histogram(
      'refinement_duration_seconds',
      'From the request to completed or failed',
      ['status'],
      runBuckets,
    ),
    /** Read at scrape time. */
    proposals: gauge('proposals', 'Proposals in the database', ['status']),
    proposalsResolvedTotal: counter('proposals_resolved_total', 'Decisions', ['resolution']),
    proposalFailuresTotal: counter('proposal_failures_total', 'Failed proposals', ['code']),
    /** Read at scrape time. */
    activeUsers: gauge('active_users', 'Users seen within the window', ['window']),
    websocketConnections: gauge('websocket_connections', 'Open sockets of viewers'),
    websocketFramesSentTotal: counter('websocket_frames_sent_total', 'Frames handed to viewers', [
      'event_type',
    ]),
    websocketFramesMergedTotal: counter('websocket_frames_merged_total', 'Frames merged for slow viewers'),
    websocketFramesLeftOutTotal: counter(
      'websocket_frames_left_out_total',
      'Frames left out for slow viewers, told by on_skipped',
    ),
    websocketSlowStepsTotal: counter(
      'websocket_slow_steps_total',
      'Viewers that went to this step of the ladder: merged, states, and back to full',
      ['step'],
    ),
    websocketSlowClosesTotal: counter('websocket_slow_closes_total', 'Viewers closed with 4408'),
    websocketClosesTotal: counter('websocket_closes_total', 'Closed sockets of viewers', ['code']),
    streamResumesTotal: counter('stream_resumes_total', 'Answered positions', ['recovery']),
    rateLimitedTotal: counter('rate_limited_total', 'Refusals with 429 or 4429', ['scope']),
    deepagentsRuntimeRequestsTotal: counter(
      'deepagents_runtime_requests_total',
      'Calls to the runtime; status is the HTTP status or what happened instead',
      ['endpoint', 'status'],
    ),
    deepagentsRuntimeRequestDurationSeconds: histogram(
      'deepagents_runtime_request_duration_seconds',
      'One call to the runtime, without waiting in the queue',
      ['endpoint'],
      callBuckets,
    ),
    circuitState: gauge('circuit_state', '0 closed, 1 half open, 2 open', ['circuit']),
    /** Read at scrape time. */
    actors: gauge('actors', 'Live threads of this replica by state of the machine', ['state']),
    actorTransitionsTotal: counter('actor_transitions_total', 'Committed transitions', ['from', 'to']),
    dbQueryDurationSeconds: histogram(
      'db_query_duration_seconds',
      'One named statement, the wait for a connection included',
      ['query'],
      callBuckets,
    ),
    /** Read at scrape time. */
    outboxPending: gauge('outbox_pending', 'Clean-ups that the runtime has not confirmed'),
    /** Read at scrape time. */
    transcriptsIncomplete: gauge('transcripts_incomplete', 'Ended runs whose frames are still being stored'),
    threadsTakenOverTotal: counter('threads_taken_over_total', 'Threads taken over from dead replicas'),
    httpRequestsTotal: counter('http_requests_total', 'Answered requests', ['method', 'route', 'status']),
    httpRequestDurationSeconds: histogram(
      'http_request_duration_seconds',
      'From the head of a request to its answer',
      ['method', 'route'],
      callBuckets,
    ),
    contentType: registry.contentType,
    /** `read` runs before each rendering, to set the gauges that are read at scrape time. */
    onCollect(read: () => void | Promise<void>): void {
      readers.push(read);
    },
    /** Text for `GET /metrics`. A reader that fails leaves its gauges at their last values and is told to `onError`. */
    async render(): Promise<string> {
      const results = await Promise.allSettled(readers.map(async (read) => read()));
      for (const result of results) {
        if (result.status === 'rejected') options.onError?.(toError(result.reason));
      }
      return registry.metrics();
    },
  };
}

/** Sets one label's whole distribution; values that are no longer there become 0, so that a graph falls instead of standing still. */
export function setCounts<Label extends string>(
  gauge: Gauge<Label>,
  label: Label,
  counts: Readonly<Record<string, number>>,
  known: readonly string[] = [],
): void {
  gauge.reset();
  for (const value of known) gauge.set({ [label]: value } as Record<Label, string>, 0);
  for (const [value, count] of Object.entries(counts)) {
    gauge.set({ [label]: value } as Record<Label, string>, count);
  }
}
