import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';

export interface OwnConnectionDeps {
  readonly url: string;
  readonly applicationName: string;
  /** Runs after each connect; a rejection is a lost connection. */
  readonly onConnected: (client: pg.Client) => Promise<void>;
  readonly onLost?: ((error: Error) => void) | undefined;
  /** Milliseconds between two tries, without back-off. */
  readonly reconnectMs?: number | undefined;
  /** Milliseconds after which a statement without an answer is given up. */
  readonly answerMs?: number | undefined;
}

export interface OwnConnection {
  /** Resolves after the first connect, or when stopped. */
  readonly ready: Promise<void>;
  /** Gives up the present connection, which has shown to be dead, and makes a new one. */
  readonly renew: (error: Error) => void;
  readonly stop: () => Promise<void>;
}

const RECONNECT_MS = 500;
const CONNECT_TIMEOUT_MS = 2_000;
const GOODBYE_MS = 1_000;

/**
 * Keeps one `pg` connection of its own open, beside the pool, for as long as it is not stopped: what LISTEN and the
 * heartbeat need and Slonik has no place for. Never throws and never ends the process.
 */
export const createOwnConnection = (deps: OwnConnectionDeps): OwnConnection => {
  let stopped = false;
  let current: pg.Client | null = null;
  let timer: NodeJS.Timeout | undefined;
  let opening: Promise<void> = Promise.resolve();
  let markReady = () => {};
  const ready = new Promise<void>((resolve) => {
    markReady = resolve;
  });

  const lose = (client: pg.Client, error: Error, againInMs = deps.reconnectMs ?? RECONNECT_MS) => {
    if (current !== client) return;
    current = null;
    client.end().catch(() => undefined);
    if (stopped) return;
    deps.onLost?.(error);
    timer = setTimeout(open, againInMs);
  };

  const connect = async () => {
    const client = new pg.Client({
      connectionString: deps.url,
      application_name: deps.applicationName,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: deps.answerMs ?? CONNECT_TIMEOUT_MS,
      lock_timeout: 3_000,
      statement_timeout: 10_000,
      idle_in_transaction_session_timeout: 2_000,
    });
    current = client;
    client.on('error', (error) => lose(client, error));
    client.on('end', () => lose(client, new Error('PostgreSQL closed the connection')));
    try {
      await client.connect();
      await deps.onConnected(client);
      markReady();
    } catch (error) {
      lose(client, error instanceof Error ? error : new Error(String(error)));
    }
  };

  const open = () => {
    if (!stopped) opening = connect();
  };
  open();

  return {
    ready,
    renew: (error) => {
      // One backend may be frozen while others answer: the new connection is not to lose time.
      if (current) lose(current, error, 0);
    },
    stop: async () => {
      stopped = true;
      clearTimeout(timer);
      markReady();
      const client = current;
      current = null;
      await opening.catch(() => undefined);
      // A server that is frozen never says goodbye.
      await Promise.race([client?.end().catch(() => undefined), wait(GOODBYE_MS, undefined, { ref: false })]);
    },
  };
};
