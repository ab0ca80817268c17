import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface Metrics {
  eventSent(eventType: string): void;
  runEnded(status: string, seconds: number): void;
  requestAnswered(method: string, route: string, status: number): void;
  readersClosed(reason: 'stalled' | 'log_dropped'): void;
  contentType: string;
  render(): Promise<string>;
}

export interface MetricsDeps {
  /** Rows by status; asked when the metrics are read. */
  countRuns: () => Promise<Readonly<Record<string, number>>>;
  queueLength: () => number;
  eventLogBytes: () => number;
}

/** Metrics of one process, in a registry of their own. No label ever holds an id. */
export function createMetrics({ countRuns, queueLength, eventLogBytes }: MetricsDeps): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const prefix = 'deepagents_runtime_';
  collectDefaultMetrics({ register: registry, prefix });

  new Gauge({
    name: `${prefix}runs`,
    help: 'Runs by status, from the database',
    labelNames: ['status'],
    registers,
    async collect() {
      // While PostgreSQL is away the rest of the metrics is what one wants to see.
      const counts = await countRuns().catch(() => ({}));
      this.reset();
      for (const [status, count] of Object.entries(counts)) this.set({ status }, count);
    },
  });
  new Gauge({
    name: `${prefix}queue_length`,
    help: 'Runs that wait for a start',
    registers,
    collect() {
      this.set(queueLength());
    },
  });
  new Gauge({
    name: `${prefix}event_log_bytes`,
    help: 'Events kept in memory for readers',
    registers,
    collect() {
      this.set(eventLogBytes());
    },
  });
  const durations = new Histogram({
    name: `${prefix}run_duration_seconds`,
    help: 'From the start of a run in this process to its end',
    labelNames: ['status'],
    buckets: [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800],
    registers,
  });
  const events = new Counter({
    name: `${prefix}events_total`,
    help: 'Events of runs',
    labelNames: ['event_type'],
    registers,
  });
  const requests = new Counter({
    name: `${prefix}http_requests_total`,
    help: 'Requests answered',
    labelNames: ['method', 'route', 'status'],
    registers,
  });
  const readers = new Counter({
    name: `${prefix}readers_closed_total`,
    help: 'Streams closed before their end, to be opened again',
    labelNames: ['reason'],
    registers,
  });

  const eventCounters = new Map<string, Counter.Internal>();
  return {
    eventSent: (eventType) => {
      let counter = eventCounters.get(eventType);
      if (counter === undefined) {
        counter = events.labels(eventType);
        eventCounters.set(eventType, counter);
      }
      counter.inc();
    },
    runEnded: (status, seconds) => durations.observe({ status }, seconds),
    requestAnswered: (method, route, status) => requests.inc({ method, route, status: String(status) }),
    readersClosed: (reason) => readers.inc({ reason }),
    contentType: registry.contentType,
    render: () => registry.metrics(),
  };
}
