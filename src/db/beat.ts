import type pg from 'pg';
import { createOwnConnection } from './own-connection.js';

export interface HeartbeatDeps {
  readonly url: string;
  /** New at each start of the process. */
  readonly nodeId: string;
  /** For people: host or pod. */
  readonly name: string;
  /** Told with each beat to the other replicas (`guarantees.md` 16). */
  readonly runtimeReachable?: (() => boolean) | undefined;
  readonly logger?: { readonly warn: (fields: object, message: string) => void } | undefined;
}

const BEAT_MS = 500;
/** With one beat before it and the new connection after, less than the 3 s after which others call us dead. */
const ANSWER_MS = 1_000;

const BEAT = `
  INSERT INTO nodes (id, name, runtime_reachable) VALUES ($1, $2, $3)
  ON CONFLICT (id) DO UPDATE SET beat = nodes.beat + 1, runtime_reachable = EXCLUDED.runtime_reachable`;

const LEAVE = `
  DELETE FROM nodes n WHERE n.id = $1
    AND NOT EXISTS (SELECT 1 FROM proposals p WHERE p.status = 'processing' AND p.owner_node = n.id)`;

/**
 * Registers the node and raises its beat every 500 ms on a `pg` connection of its own, reconnecting every 500 ms
 * without back-off (`guarantees.md` 12). `stop` leaves the row where a proposal still names it.
 */
export const createHeartbeat = (deps: HeartbeatDeps): { stop: () => Promise<void>; ready: Promise<void> } => {
  let client: pg.Client | null = null;
  let pending: Promise<unknown> | null = null;
  const send = (to: pg.Client) =>
    to.query(BEAT, [deps.nodeId, deps.name, deps.runtimeReachable?.() ?? false]);

  const connection = createOwnConnection({
    url: deps.url,
    applicationName: 'ide-orchestrator-beat',
    answerMs: ANSWER_MS,
    onConnected: async (connected) => {
      await send(connected);
      client = connected;
    },
    onLost: (error) => {
      client = null;
      deps.logger?.warn({ err: error }, 'the heartbeat connection was lost');
    },
  });

  const timer = setInterval(() => {
    // A beat without an answer fails by its own timeout; none is queued behind it.
    if (!client || pending) return;
    pending = send(client)
      .catch((error: unknown) => connection.renew(error instanceof Error ? error : new Error(String(error))))
      .finally(() => {
        pending = null;
      });
  }, BEAT_MS);

  return {
    ready: connection.ready,
    stop: async () => {
      clearInterval(timer);
      await pending;
      await client?.query(LEAVE, [deps.nodeId]).catch(() => undefined);
      client = null;
      await connection.stop();
    },
  };
};
