import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { makeDataFolder, readJsonFile, writeJsonFile } from './data-files.js';
import { isRunning, type ProcessIdentity, processIdentityOf } from './process-identity.js';

interface LockNote extends ProcessIdentity {
  url: string;
}

export interface DataLock {
  /** Names the address that a second start is told, once it is known. */
  setUrl(url: string): void;
  release(): void;
}

/** Another process works on the same data. The message is for the person who started a second one. */
export class AlreadyRunningError extends Error {
  override readonly name = 'AlreadyRunningError';
  constructor(
    readonly pid: number,
    readonly url: string,
  ) {
    super(`It is running already: ${url} (process ${pid}). Stop that one first, or use it.`);
  }
}

const isSame = (a: ProcessIdentity | undefined, b: ProcessIdentity | undefined): boolean =>
  a?.pid === b?.pid && a?.started === b?.started;

/** Puts the note in place only where there is none. A link, so that the lock never exists without its content. */
const tryPlace = (lockFile: string, note: LockNote): boolean => {
  const own = `${lockFile}.${note.pid}`;
  writeJsonFile(own, note);
  try {
    fs.linkSync(own, lockFile);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  } finally {
    fs.rmSync(own, { force: true });
  }
};

/** Takes a dead process's note away; what was moved is checked, since another start may have been faster. */
const removeDead = (lockFile: string, dead: LockNote | undefined, pid: number): void => {
  const aside = `${lockFile}.${pid}.dead`;
  try {
    fs.renameSync(lockFile, aside);
  } catch {
    return;
  }
  const moved = readJsonFile<LockNote>(aside);
  if (moved !== undefined && !isSame(moved, dead)) {
    try {
      fs.linkSync(aside, lockFile);
    } catch {
      // A third start holds it now; the loop finds that out.
    }
  }
  fs.rmSync(aside, { force: true });
};

/**
 * Claims the data folder for this process.
 *
 * Throws AlreadyRunningError while the process that holds it lives; a dead one's lock is taken over.
 */
export const takeDataLock = async (deps: { dataDir: string; url: string }): Promise<DataLock> => {
  const lockFile = path.join(makeDataFolder(deps.dataDir), 'lock.json');
  const self = processIdentityOf(process.pid);
  if (self === undefined) throw new Error('This process cannot see itself; is /proc mounted?');
  const note: LockNote = { ...self, url: deps.url };
  const isOurs = (): boolean => isSame(readJsonFile<LockNote>(lockFile), self);

  while (!tryPlace(lockFile, note)) {
    const holder = readJsonFile<LockNote>(lockFile);
    if (holder !== undefined && isRunning(holder)) throw new AlreadyRunningError(holder.pid, holder.url);
    removeDead(lockFile, holder, self.pid);
    await wait(10);
  }
  return {
    setUrl: (url) => {
      if (isOurs()) writeJsonFile(lockFile, { ...note, url });
    },
    release: () => {
      if (isOurs()) fs.rmSync(lockFile, { force: true });
    },
  };
};
