import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { DatabasePool } from 'slonik';
import { migrate } from '../../src/db/migrate.js';
import { createPool } from '../../src/db/pool.js';
import { findPostgresHome } from '../../src/embedded/postgres-home.js';
import {
  databaseUrl,
  initialise,
  passwordOf,
  startServer,
  stopServer,
  withClient,
} from '../../src/embedded/postgres-server.js';
import { isRunning, type ProcessIdentity } from '../../src/embedded/process-identity.js';
import { nextKeptPort } from './same-port.js';
import { until } from './until.js';

interface Owner {
  teardown(handler: () => Promise<void> | void): void;
}

/** A PostgreSQL of the test's own, to be ill-treated. */
export interface OwnPostgres {
  readonly url: string;
  readonly pool: DatabasePool;
  /** Process ids of the backends of connections with this application name. */
  backends(applicationName: string): Promise<number[]>;
  /** SIGSTOP: of these processes, or of the whole server. */
  freeze(pids?: readonly number[]): void;
  thaw(): void;
  /** SIGKILL of these backends: the server throws all others out, and recovers. */
  kill(pids: readonly number[]): void;
  stop(): Promise<void>;
  start(): Promise<void>;
}

const settings = { fsync: 'off', full_page_writes: 'off', autovacuum: 'off', max_connections: '60' };
const database = 'ide_orchestrator';

const childrenOf = (parent: number): number[] =>
  execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, of]) => of === parent)
    .map(([pid = 0]) => pid);

/** Starts it on a free port, with the migrated database of an orchestrator. The teardown removes everything. */
export const createOwnPostgres = async (owner: Owner): Promise<OwnPostgres> => {
  // Not a folder of tap's, which is removed before a teardown could stop what runs in it.
  const dataDir = path.join(process.cwd(), '.data', `own-${process.pid}`);
  const home = await findPostgresHome(dataDir);
  initialise(home);
  const address = { port: await nextKeptPort(), password: passwordOf(home) };
  let server: ProcessIdentity = await startServer(home, address, settings);
  let frozen: number[] = [];
  const send = (pids: readonly number[], signal: NodeJS.Signals) => {
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch {
        // It is gone already.
      }
    }
  };
  const thaw = () => {
    send(frozen, 'SIGCONT');
    frozen = [];
  };
  const stop = async () => {
    thaw();
    await stopServer(server);
  };
  owner.teardown(async () => {
    await stop();
    for (const folder of [home.folder, dataDir]) fs.rmSync(folder, { recursive: true, force: true });
  });
  await withClient(address, (client) => client.query(`CREATE DATABASE ${database}`));
  const url = databaseUrl(address, database);
  await migrate(url);
  const pool = await createPool({ url, maximumPoolSize: 4, applicationName: 'test' });
  owner.teardown(async () => {
    thaw();
    await pool.end().catch(() => undefined);
  });
  return {
    url,
    pool,
    backends: (name) =>
      withClient(address, async (client) => {
        const { rows } = await client.query<{ pid: number }>(
          'SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start',
          [name],
        );
        return rows.map(({ pid }) => pid);
      }),
    freeze(pids) {
      // The parent first, or it would replace a child that it misses.
      frozen = [...frozen, ...(pids ?? [server.pid, ...childrenOf(server.pid)])];
      send(frozen, 'SIGSTOP');
    },
    thaw,
    kill: (pids) => send(pids, 'SIGKILL'),
    stop,
    async start() {
      await until(() => !isRunning(server));
      server = await startServer(home, address, settings);
    },
  };
};
