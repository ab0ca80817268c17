import pg from 'pg';
import { createOwnConnection } from './own-connection.js';

export interface ListenerDeps {
  readonly url: string;
  readonly channel: string;
  readonly onNotify: (payload: string) => void;
  /** After each connect, the first too: what was notified meanwhile is lost, so read again (`guarantees.md` 11). */
  readonly onReconnect: () => void;
  readonly logger?: { readonly warn: (fields: object, message: string) => void } | undefined;
}

/**
 * Listens on a channel on a `pg` connection of its own and reconnects every 500 ms. A notice is a hint only.
 *
 * @returns `ready` resolves once it listens for the first time, or is stopped
 */
export const createListener = (deps: ListenerDeps): { stop: () => Promise<void>; ready: Promise<void> } => {
  const connection = createOwnConnection({
    url: deps.url,
    applicationName: 'ide-orchestrator-listen',
    onConnected: async (client) => {
      client.on('notification', (notice) => {
        if (notice.channel === deps.channel) deps.onNotify(notice.payload ?? '');
      });
      await client.query(`LISTEN ${pg.escapeIdentifier(deps.channel)}`);
      deps.onReconnect();
    },
    onLost: (error) => deps.logger?.warn({ err: error }, 'the listening connection was lost'),
  });
  return { stop: connection.stop, ready: connection.ready };
};
