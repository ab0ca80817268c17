import { execFileSync } from 'node:child_process';
import fs from 'node:fs';

/** What a process has used so far, seconds. */
export interface CpuTime {
  user: number;
  system: number;
  /** Part of both that threads beside the main one took: garbage collector, compiler. 0 where it is not known. */
  helpers: number;
}

/** CPU time of a process with all its threads. Linux: in steps of 10 ms; elsewhere not split, all of it is `user`. */
export function cpuTimeOf(pid: number): CpuTime {
  if (process.platform === 'linux') {
    const all = statOf(`/proc/${pid}/stat`);
    const main = statOf(`/proc/${pid}/task/${pid}/stat`);
    return { ...all, helpers: all.user + all.system - main.user - main.system };
  }
  const [seconds = '0', minutes = '0', hours = '0'] = ps(pid, 'cputime').split(':').reverse();
  return { user: Number(seconds) + 60 * Number(minutes) + 3600 * Number(hours), system: 0, helpers: 0 };
}

function statOf(file: string): { user: number; system: number } {
  const stat = fs.readFileSync(file, 'utf8');
  // The name in parentheses may hold anything; the fields are counted from its end (proc(5), 14 and 15).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { user: Number(fields[11]) / ticksPerSecond(), system: Number(fields[12]) / ticksPerSecond() };
}

/** Resident memory of a process, bytes. */
export const residentBytesOf = (pid: number): number => Number(ps(pid, 'rss')) * 1024;

const ps = (pid: number, column: string): string =>
  execFileSync('ps', ['-o', `${column}=`, '-p', String(pid)], { encoding: 'utf8' }).trim();

let ticks = 0;
function ticksPerSecond(): number {
  ticks ||= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return ticks;
}
