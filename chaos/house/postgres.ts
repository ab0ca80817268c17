import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { findPostgresHome, type PostgresHome } from '../../src/embedded/postgres-home.js';
import {
  databaseUrl,
  dataFolderOf,
  findServer,
  initialise,
  passwordOf,
  type ServerAddress,
  startServer,
  stopServer,
  withClient,
} from '../../src/embedded/postgres-server.js';
import { endProcess, isRunning, type ProcessIdentity } from '../../src/embedded/process-identity.js';
import type { Random } from '../random.js';
import type { Troubles } from '../troubles.js';
import type { Part } from './part.js';
import { childrenOf, signal } from './processes.js';

export interface Postgres extends Part {
  readonly port: number;
  /** The same server through another port. */
  url(database: string, port?: number): string;
  /** One connection's process; null where there is none. */
  pickBackend(random: Random): number | null;
}

/** A commit is on disk before it is answered, as in the embedded server. */
const settings = {
  // Tells whether a viewer was told of an end before its commit.
  track_commit_timestamp: 'on',
  // What is killed here is processes, not the machine: recovery need not sync each file of the cluster before it begins.
  recovery_init_sync_method: 'syncfs',
  checkpoint_timeout: '30s',
};
const backendName = /^postgres: \S+ (ide_orchestrator|deepagents_runtime) /;

/** A server with data of its own below `dataDir`, which comes back at its port whenever it dies. */
export async function startPostgres(options: {
  dataDir: string;
  port: number;
  databases: readonly string[];
  logFile: string;
  troubles: Troubles;
}): Promise<Postgres> {
  const home = await findPostgresHome(options.dataDir);
  await removeWhatWasLeft(home);
  initialise(home);
  const address: ServerAddress = { port: options.port, password: passwordOf(home) };
  let server: ProcessIdentity | null = await startServer(home, address, settings);
  let ready = true;
  let stopped = false;
  await withClient(address, async (client) => {
    for (const name of options.databases)
      await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  });

  /** Also of one that is dead already: they are not its children any more then, so they are noted before. */
  const family = (): number[] =>
    server === null ? [] : [server.pid, ...childrenOf(server.pid).map(({ pid }) => pid)];
  let frozen: number[] = [];
  const thaw = () => {
    for (const pid of frozen) signal(pid, 'SIGCONT');
    frozen = [];
  };

  const keepLog = () => {
    // Each start of the server begins its log anew.
    fs.appendFileSync(options.logFile, fs.readFileSync(path.join(home.folder, 'server.log')));
  };

  const watching = (async () => {
    while (!stopped) {
      await wait(20);
      if (stopped || (server !== null && isRunning(server))) continue;
      ready = false;
      keepLog();
      const recovered = options.troubles.begin('postgres');
      try {
        server = await startServer(home, address, settings);
        ready = true;
        recovered();
      } catch (error) {
        // Killed again while it recovered, or its shared memory is still held for a moment.
        server = null;
        recovered();
        fs.appendFileSync(options.logFile, `${String(error)}\n`);
        await wait(200);
      }
    }
  })();

  return {
    name: 'postgres',
    port: options.port,
    url: (database, port) => databaseUrl({ ...address, port: port ?? options.port }, database),
    pid: () => server?.pid ?? null,
    isReady: () => ready && server !== null && isRunning(server),
    async untilReady() {
      while (!(ready && server !== null && isRunning(server)) && !stopped) await wait(20);
    },
    // As when a machine or a container dies: all of it at once.
    end() {
      const all = family();
      ready = false;
      for (const pid of all) signal(pid, 'SIGKILL');
      frozen = [];
    },
    freeze() {
      frozen = [...frozen, ...family()];
      for (const pid of frozen) signal(pid, 'SIGSTOP');
    },
    thaw,
    pickBackend(random) {
      if (server === null) return null;
      const backends = childrenOf(server.pid).filter(({ name }) => backendName.test(name));
      return backends.length === 0 ? null : random.pick(backends).pid;
    },
    async stop() {
      stopped = true;
      thaw();
      await watching;
      if (server !== null) await stopServer(server);
      fs.rmSync(home.folder, { recursive: true, force: true });
    },
  };
}

async function removeWhatWasLeft(home: PostgresHome): Promise<void> {
  const found = findServer(home);
  if (found !== undefined)
    await endProcess(found.server, [
      ['SIGQUIT', 3_000],
      ['SIGKILL', 5_000],
    ]);
  fs.rmSync(dataFolderOf(home), { recursive: true, force: true });
}
