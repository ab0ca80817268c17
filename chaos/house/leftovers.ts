import { readJsonFile, writeJsonFile } from '../../src/embedded/data-files.js';
import { endProcess, type ProcessIdentity, processIdentityOf } from '../../src/embedded/process-identity.js';

/** Notes a process, so that the next campaign can end it should this one be killed. */
export function noteChild(file: string, pid: number): void {
  const identity = processIdentityOf(pid);
  if (identity === undefined) return;
  const alive = (readJsonFile<ProcessIdentity[]>(file) ?? []).filter(
    (one) => processIdentityOf(one.pid)?.started === one.started,
  );
  writeJsonFile(file, [...alive, identity]);
}

/** Ends what a campaign that was killed has left behind. The caller holds the lock of the folder. */
export async function endLeftovers(file: string): Promise<void> {
  const noted = readJsonFile<ProcessIdentity[]>(file) ?? [];
  await Promise.all(noted.map((one) => endProcess(one, [['SIGKILL', 5_000]])));
}
