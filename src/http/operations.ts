import { z } from 'zod/v4';
import type { ThreadDirectory } from '../actors/thread-directory.js';
import { isUnavailable, withDeadline } from '../db/pool.js';
import { type Route, route } from './route.js';

const health = z.object({ status: z.literal('ok') }).meta({ id: 'Health' });
const readiness = z
  .object({
    status: z.enum(['ready', 'not_ready']),
    stopping: z.boolean(),
    postgresql: z.enum(['up', 'down', 'slow']),
    pending_migrations: z.int().nullable(),
    runtime: z.object({ status: z.enum(['up', 'away']), retry_after_seconds: z.int().nullable() }),
  })
  .meta({ id: 'Readiness' });

const tag = 'operations';
/** A probe is answered within 2 s whatever PostgreSQL does, and whatever waits for the pool. */
const READINESS_MS = 1_500;

/** What probes ask: does the loop turn; can this replica do its work. */
export function operationRoutes(deps: {
  directory: Pick<ThreadDirectory, 'runtimeRetryAfterSeconds'>;
  /** Asks PostgreSQL. */
  pendingMigrations: () => Promise<number>;
  isStopping: () => boolean;
  deadlineMs: number;
}): Route[] {
  const postgresql = async () => {
    try {
      return {
        postgresql: 'up' as const,
        pending: await withDeadline(deps.pendingMigrations(), Math.min(deps.deadlineMs, READINESS_MS)),
      };
    } catch (error) {
      return { postgresql: isUnavailable(error) ? ('down' as const) : ('slow' as const), pending: null };
    }
  };
  return [
    route({
      method: 'GET',
      path: '/health',
      name: 'health',
      summary: 'The event loop turns',
      tag,
      access: 'probe',
      answers: { 200: health },
      handle: async () => ({ status: 200, body: { status: 'ok' } }),
    }),
    route({
      method: 'GET',
      path: '/ready',
      name: 'ready',
      summary:
        'PostgreSQL answers, migrations are done, nothing is stopping; the runtime is named but does not count',
      tag,
      access: 'probe',
      answers: { 200: readiness, 503: readiness },
      async handle() {
        const database = await postgresql();
        const stopping = deps.isStopping();
        const seconds = deps.directory.runtimeRetryAfterSeconds();
        const ready = !stopping && database.postgresql === 'up' && database.pending === 0;
        return {
          status: ready ? 200 : 503,
          body: {
            status: ready ? 'ready' : 'not_ready',
            stopping,
            postgresql: database.postgresql,
            pending_migrations: database.pending,
            runtime: { status: seconds === null ? 'up' : 'away', retry_after_seconds: seconds },
          },
          ...(ready ? {} : { headers: { 'Retry-After': '5' } }),
        };
      },
    }),
  ];
}
