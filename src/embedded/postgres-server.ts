import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type pg from 'pg';
import { withConnection } from '../db/brief-connection.js';
import { type PostgresHome, serverEnvironment } from './postgres-home.js';
import { commandOf, endProcess, type ProcessIdentity, processIdentityOf } from './process-identity.js';

export interface ServerAddress {
  port: number;
  password: string;
}

/** Fast shutdown, then without a checkpoint, then by force: the data survives each of them. */
const stopSteps = [
  ['SIGINT', 15_000],
  ['SIGQUIT', 5_000],
  ['SIGKILL', 5_000],
] as const;

/** For one that does not answer: it may well be frozen and hear nothing but the last. */
const impatientSteps = [
  ['SIGINT', 3_000],
  ['SIGQUIT', 1_000],
  ['SIGKILL', 5_000],
] as const;

export const stopServer = (server: ProcessIdentity): Promise<boolean> => endProcess(server, stopSteps);

export const dataFolderOf = (home: PostgresHome): string => path.join(home.folder, 'data');
const logFileOf = (home: PostgresHome): string => path.join(home.folder, 'server.log');

export const databaseUrl = (address: ServerAddress, database: string): string =>
  `postgresql://postgres:${address.password}@127.0.0.1:${address.port}/${encodeURIComponent(database)}`;

/** How long a server that is there may take to let somebody in, on a busy machine; ms. */
const connectMs = 15_000;
/** For one that may not be there, or frozen: it is asked again. */
const probeMs = 1_000;

/** Runs `work` on a connection of its own to the maintenance database. */
export const withClient = <T>(
  address: ServerAddress,
  work: (client: pg.Client) => Promise<T>,
  withinMs = connectMs,
): Promise<T> =>
  withConnection(
    {
      connectionString: databaseUrl(address, 'postgres'),
      connectionTimeoutMillis: withinMs,
      query_timeout: 30_000,
    },
    work,
  );

/** Whether the PostgreSQL of exactly this home answers at the address. */
const answers = (home: PostgresHome, address: ServerAddress): Promise<boolean> =>
  withClient(
    address,
    async (client) => {
      const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
      return rows[0]?.data_directory === dataFolderOf(home);
    },
    probeMs,
  ).catch(() => false);

/** The superuser's password. It lies beside the data, so that it goes where the data goes. */
const passwordFileOf = (home: PostgresHome): string => path.join(home.folder, 'password');
export const passwordOf = (home: PostgresHome): string =>
  fs.readFileSync(passwordFileOf(home), 'utf8').trim();

/**
 * Makes the data folder unless there is one. initdb removes what it made when it fails.
 * Throws where the data were made by another major version, which this one cannot read.
 */
export const initialise = (home: PostgresHome): void => {
  const data = dataFolderOf(home);
  const versionFile = path.join(data, 'PG_VERSION');
  if (fs.existsSync(versionFile)) {
    const major = fs.readFileSync(versionFile, 'utf8').trim();
    if (home.version.startsWith(`${major}.`)) return;
    throw new Error(
      `${data} is of PostgreSQL ${major}, this is ${home.version}; move it away to begin anew.`,
    );
  }
  const passwordFile = passwordFileOf(home);
  fs.writeFileSync(passwordFile, `${randomBytes(18).toString('hex')}\n`, { mode: 0o600 });
  if (home.user.uid !== undefined) fs.chownSync(passwordFile, home.user.uid, home.user.gid ?? -1);
  // The built-in locale: sorting does not depend on what the machine has installed.
  const locale = ['--encoding=UTF8', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C'];
  const made = spawnSync(
    path.join(home.native, 'bin', 'initdb'),
    [
      `--pgdata=${data}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      ...locale,
    ],
    { ...home.user, cwd: home.folder, env: serverEnvironment, encoding: 'utf8' },
  );
  if (made.status !== 0) throw new Error(`initdb failed: ${made.error?.message ?? made.stderr}`);
};

/** The server that the data folder's postmaster.pid names, where that is a running PostgreSQL. */
export const findServer = (home: PostgresHome): { server: ProcessIdentity; port: number } | undefined => {
  const pidFile = path.join(dataFolderOf(home), 'postmaster.pid');
  if (!fs.existsSync(pidFile)) return undefined;
  const [pid, , , port] = fs.readFileSync(pidFile, 'utf8').split('\n').map(Number);
  const server = pid === undefined ? undefined : processIdentityOf(pid);
  // Dead: PostgreSQL replaces the file by itself.
  if (server === undefined) return undefined;
  if (commandOf(server.pid).includes(dataFolderOf(home))) return { server, port: port ?? 0 };
  // The number belongs to another program by now, which would keep PostgreSQL from starting for ever.
  fs.rmSync(pidFile, { force: true });
  return undefined;
};

/** Adopts the server that was left behind if it answers within a few seconds, otherwise stops it. */
export const adoptServer = async (
  home: PostgresHome,
): Promise<{ server: ProcessIdentity; address: ServerAddress } | undefined> => {
  const found = findServer(home);
  if (found === undefined) return undefined;
  const address = { port: found.port, password: passwordOf(home) };
  for (let attempt = 0; attempt < 3; attempt += 1) {
    if (await answers(home, address)) return { server: found.server, address };
    await wait(300);
  }
  await endProcess(found.server, impatientSteps);
  return undefined;
};

const tailOf = (file: string): string =>
  fs.readFileSync(file, 'utf8').split('\n').slice(-12).join('\n').trim();

/**
 * Starts the server in a process group of its own, so that Ctrl-C in the terminal reaches it only through us.
 * Resolves when it answers; rejects with the end of its log when it ends before, or after 60 s (recovery).
 */
export const startServer = async (
  home: PostgresHome,
  address: ServerAddress,
  settings: Readonly<Record<string, string>> = {},
): Promise<ProcessIdentity> => {
  const all = {
    listen_addresses: '127.0.0.1',
    port: String(address.port),
    unix_socket_directories: '',
    max_connections: '200',
    // What was promised to a viewer must survive a crash here too.
    synchronous_commit: 'on',
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...settings,
  };
  // A file, not a pipe: the server outlives us when we are killed, and must not die of writing to nobody.
  const log = fs.openSync(logFileOf(home), 'w', 0o600);
  const child = spawn(
    path.join(home.native, 'bin', 'postgres'),
    ['-D', dataFolderOf(home), ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    { ...home.user, cwd: home.folder, env: serverEnvironment, detached: true, stdio: ['ignore', log, log] },
  );
  fs.closeSync(log);
  let spawnError: Error | undefined;
  child.on('error', (error) => {
    spawnError = error;
  });
  child.unref();
  const server = child.pid === undefined ? undefined : processIdentityOf(child.pid);
  const deadline = performance.now() + 60_000;
  while (server !== undefined && performance.now() < deadline) {
    if (await answers(home, address)) return server;
    if (processIdentityOf(server.pid)?.started !== server.started) break;
    await wait(50);
  }
  if (server !== undefined) await stopServer(server);
  throw new Error(`PostgreSQL did not start: ${spawnError?.message ?? tailOf(logFileOf(home))}`);
};
