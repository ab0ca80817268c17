import fs from 'node:fs';

export interface Leftover {
  pid: number;
  command: string;
}

/**
 * A variable that every process below the tests inherits, also one that is given an environment of its own:
 * tap hands variables with this beginning on at every spawn.
 */
export const markerName = '_TAPJS_PROCESSINFO_SUITE_';

/** Processes that carry the marker and still run. Linux only; elsewhere there is nothing to read it from. */
export const findLeftovers = (marker: string): Leftover[] => {
  if (process.platform !== 'linux') return [];
  const found: Leftover[] = [];
  for (const name of fs.readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const environment = fs.readFileSync(`/proc/${name}/environ`, 'utf8').split('\0');
      if (!environment.includes(`${markerName}=${marker}`)) continue;
      found.push({
        pid,
        command: fs.readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim(),
      });
    } catch {
      // Gone by now, or another user's.
    }
  }
  return found;
};

/** Ends what was left over, so that a failed run does not disturb the next one. */
export const endLeftovers = (leftovers: readonly Leftover[]): void => {
  for (const { pid } of leftovers) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone by now.
    }
  }
};
