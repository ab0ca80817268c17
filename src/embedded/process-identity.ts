import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';

/** A process that can be recognised later: a pid alone may belong to another one by then. */
export interface ProcessIdentity {
  pid: number;
  /** Opaque: on Linux boot id and ticks since boot, elsewhere what `ps -o lstart=` says. */
  started: string;
}

const linuxStart = (pid: number): string | undefined => {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The second field is the command in brackets and may hold anything, so fields count from its end.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A zombie does nothing any more; below a first process that reaps nobody it would seem alive for ever.
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${boot}:${fields[19]}`;
};

const otherStart = (pid: number): string | undefined => {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    return line === '' || line.startsWith('Z') ? undefined : line.replace(/^\S+\s+/, '');
  } catch {
    return undefined;
  }
};

/** The identity of a running process, undefined when there is none with this pid. */
export const processIdentityOf = (pid: number): ProcessIdentity | undefined => {
  const started = process.platform === 'linux' ? linuxStart(pid) : otherStart(pid);
  return started === undefined ? undefined : { pid, started };
};

/** The command line of a process with its arguments, empty when it is unknown. */
export const commandOf = (pid: number): string => {
  try {
    if (process.platform === 'linux')
      return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    return execFileSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' });
  } catch {
    return '';
  }
};

export const isRunning = (identity: ProcessIdentity): boolean =>
  processIdentityOf(identity.pid)?.started === identity.started;

const send = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // Gone between the look and the signal.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
};

/** Resolves true as soon as the process is gone, false after `timeoutMs`. */
const waitUntilGone = async (identity: ProcessIdentity, timeoutMs: number): Promise<boolean> => {
  const deadline = performance.now() + timeoutMs;
  while (isRunning(identity)) {
    if (performance.now() > deadline) return false;
    await wait(20);
  }
  return true;
};

/**
 * Sends the signals one after another, each with its time to act (ms), until the process is gone.
 * With `group` the signals go to its whole process group, which it must lead.
 */
export const endProcess = async (
  identity: ProcessIdentity,
  steps: readonly (readonly [NodeJS.Signals, number])[],
  options: { group?: boolean } = {},
): Promise<boolean> => {
  for (const [signal, timeoutMs] of steps) {
    if (!isRunning(identity)) return true;
    send(options.group ? -identity.pid : identity.pid, signal);
    if (await waitUntilGone(identity, timeoutMs)) return true;
  }
  return !isRunning(identity);
};
