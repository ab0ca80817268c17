import { trace } from '@opentelemetry/api';
import type { CommonQueryMethods } from 'slonik';
import { createThreadRegistry } from '../../../src/actors/thread-registry.js';
import { type Config, loadConfig } from '../../../src/config.js';
import { nameOf } from '../../../src/db/statement.js';
import { createFrameCounts } from '../../../src/streams/frame-counts.js';
import { createWindowBudget } from '../../../src/streams/replay-window.js';
import { createDeepAgentsRuntimeClient } from '../../../src/streams/runtime-client.js';
import { createRuntimeFrames, type RuntimeFrames } from '../../../src/streams/runtime-socket.js';
import { createLogger } from '../../../src/telemetry/logger.js';
import { createMetrics } from '../../../src/telemetry/metrics.js';
import { createFakeTopics } from '../../support/fake-viewer.js';
import { eventually } from '../../support/until.js';

interface Owner {
  teardown(handler: () => Promise<void>): void;
}

/** The threads of a replica without its server, on a real database and runtime, and on a clock that can be stopped and put forward. */
export function createRegistry(
  owner: Owner,
  parts: {
    pool: CommonQueryMethods;
    runtimeUrl: string;
    node: string;
    /** Instead of the runtime's own streams. */
    frames?: (real: RuntimeFrames) => RuntimeFrames;
    config?: { [Section in 'runs' | 'runtime' | 'database' | 'window']?: Partial<Config[Section]> };
    circuitOpenMs?: number;
    /** A clock of the test's own. */
    now?: () => number;
  },
) {
  let ahead = 0;
  let stands: number | null = null;
  const now = parts.now ?? (() => stands ?? performance.now() + ahead);
  const clock = {
    /** From now on no time passes but what the test lets pass. */
    stop() {
      stands = now();
    },
    pass(milliseconds: number) {
      if (stands === null) ahead += milliseconds;
      else stands += milliseconds;
    },
    go() {
      ahead = now() - performance.now();
      stands = null;
    },
  };
  const asked = new Map<string, number>();
  const db = new Proxy(parts.pool, {
    get(target, name: keyof CommonQueryMethods) {
      const method = target[name];
      if (name !== 'any') return method;
      return (statement: { sql: string }) => {
        const named = nameOf(statement.sql);
        asked.set(named, (asked.get(named) ?? 0) + 1);
        return Reflect.apply(method, target, [statement]);
      };
    },
  });
  const base = loadConfig({ JWT_SECRET: 'x'.repeat(32) });
  const config = {
    ...base,
    runs: { ...base.runs, reconnectBaseMs: 10, reconnectMaxMs: 50, ...parts.config?.runs },
    runtime: { ...base.runtime, ...parts.config?.runtime },
    database: { ...base.database, ...parts.config?.database },
    window: { ...base.window, ...parts.config?.window },
  };
  const metrics = createMetrics({ processMetrics: false });
  const log = createLogger({ level: 'silent', production: true });
  const client = createDeepAgentsRuntimeClient({
    url: parts.runtimeUrl,
    config: config.runtime,
    metrics,
    tracer: trace.getTracer('test'),
    log,
    random: Math.random,
    now,
    ...(parts.circuitOpenMs === undefined ? {} : { circuitOpenMs: parts.circuitOpenMs }),
  });
  const real = createRuntimeFrames({
    open: ({ threadId, position }) =>
      client.streamWebSocket({ threadId, after: position?.after ?? null, epoch: position?.epoch ?? null }),
    pingIntervalMs: 5_000,
    frameBytes: 1 << 20,
  });
  const topics = createFakeTopics();
  const cleanUps = { due: 0 };
  const registry = createThreadRegistry({
    db,
    client,
    runtimeFrames: parts.frames?.(real) ?? real,
    runtimeLog: { read: async () => ({ frames: [], rest: 'gone' }) },
    transcripts: { complete: async () => undefined },
    publish: topics.publish,
    windowBudget: createWindowBudget(config.window),
    frameCounts: createFrameCounts(),
    config,
    metrics,
    log,
    node: parts.node,
    random: Math.random,
    now,
    onCleanUpDue: () => void cleanUps.due++,
    sole: false,
  });
  owner.teardown(async () => {
    await registry.stop();
    client.stop();
  });
  /** Resolves when that has been asked so often once more; the one before the last has its answer by then. */
  const rounds = (statement: string) => async (count: number) => {
    const from = asked.get(statement) ?? 0;
    await eventually(`${statement} again`, () => (asked.get(statement) ?? 0) >= from + count);
  };
  return {
    registry,
    client,
    topics,
    clock,
    config,
    cleanUps,
    /** Once a second the threads are ticked, and then read again. */
    ticks: rounds('reread_threads'),
    polls: rounds('list_nodes'),
  };
}
