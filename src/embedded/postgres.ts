import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import { readJsonFile, writeJsonFile } from './data-files.js';
import { findFreePort } from './free-port.js';
import { findPostgresHome, type PostgresHome } from './postgres-home.js';
import {
  adoptServer,
  databaseUrl,
  dataFolderOf,
  findServer,
  initialise,
  passwordOf,
  type ServerAddress,
  startServer,
  stopServer,
  withClient,
} from './postgres-server.js';
import { isRunning, type ProcessIdentity } from './process-identity.js';

export interface EmbeddedPostgres {
  /** Connection URL of a database of this server. */
  url(database: string): string;
  /** True where a server was running already and went on. */
  adopted: boolean;
  stop(): Promise<void>;
}

interface PostgresNote {
  port: number;
  home: string;
}

const startRetries = 5;
const watchIntervalMs = 500;

const createMissingDatabases = (address: ServerAddress, names: readonly string[]): Promise<void> =>
  withClient(address, async (client) => {
    for (const name of names) {
      const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [name]);
      if (rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
    }
  });

/** Whoever deletes `.data` to begin anew means the data too, wherever they had to be put. */
const removeForgotten = async (home: PostgresHome): Promise<void> => {
  const found = findServer(home);
  if (found !== undefined) await stopServer(found.server);
  fs.rmSync(dataFolderOf(home), { recursive: true, force: true });
};

/** Starts the server; repeats, since backends of a killed one hold its shared memory for a moment. */
const startPatiently = async (
  home: PostgresHome,
  address: ServerAddress,
  settings?: Readonly<Record<string, string>>,
): Promise<ProcessIdentity> => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startServer(home, address, settings);
    } catch (error) {
      if (attempt === startRetries) throw error;
      await wait(200 * attempt);
    }
  }
};

/** Starts the server again, at its old port, whenever it died without having been told to. */
const keepRunning = (deps: {
  first: ProcessIdentity;
  start: () => Promise<ProcessIdentity>;
  log: Logger;
}): { stop(): Promise<void> } => {
  const ended = new AbortController();
  let server = deps.first;
  const watch = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      await wait(watchIntervalMs, undefined, { signal: ended.signal, ref: false }).catch(() => undefined);
      if (ended.signal.aborted || isRunning(server)) continue;
      deps.log.warn('embedded PostgreSQL died, starting it again');
      try {
        server = await deps.start();
      } catch (error) {
        deps.log.error({ err: error }, 'embedded PostgreSQL does not start');
      }
    }
  };
  const watching = watch();
  return {
    stop: async () => {
      ended.abort();
      await watching;
      await stopServer(server);
    },
  };
};

/**
 * A real PostgreSQL of this clone's own on 127.0.0.1, with its data kept below `dataDir` (or where
 * findPostgresHome had to put it). The caller holds the data lock. One that is still running is adopted.
 *
 * `databases` are created where missing. `temporary` removes everything again on stop.
 */
export const startEmbeddedPostgres = async (deps: {
  dataDir: string;
  log: Logger;
  databases?: readonly string[];
  settings?: Readonly<Record<string, string>>;
  temporary?: boolean;
}): Promise<EmbeddedPostgres> => {
  const { log } = deps;
  const home = await findPostgresHome(deps.dataDir);
  const noteFile = path.join(deps.dataDir, 'postgres.json');
  const known = readJsonFile<PostgresNote>(noteFile);
  // A clone that was copied or moved brings a note of another place along.
  const note = known?.home === home.folder ? known : undefined;
  if (home.outside)
    log.info({ folder: home.folder }, 'PostgreSQL lives outside the clone, which its user cannot enter');

  if (home.outside && note === undefined) await removeForgotten(home);
  const adopted = await adoptServer(home);
  let address = adopted?.address;
  if (address === undefined) {
    initialise(home);
    address = { port: await findFreePort(note?.port), password: passwordOf(home) };
  }
  writeJsonFile(noteFile, { port: address.port, home: home.folder } satisfies PostgresNote);
  const fixed = address;
  const start = (): Promise<ProcessIdentity> => startPatiently(home, fixed, deps.settings);
  const server = adopted?.server ?? (await start());
  await createMissingDatabases(fixed, deps.databases ?? []);
  const keeper = keepRunning({ first: server, start, log });
  log.info({ port: fixed.port, adopted: adopted !== undefined }, 'embedded PostgreSQL is ready');

  return {
    url: (database) => databaseUrl(fixed, database),
    adopted: adopted !== undefined,
    stop: async () => {
      await keeper.stop();
      if (!deps.temporary) return;
      fs.rmSync(home.folder, { recursive: true, force: true });
      fs.rmSync(noteFile, { force: true });
    },
  };
};
