import { execFileSync } from 'node:child_process';

/** Sends a signal to a process; false where it is gone. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    process.kill(pid, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** The processes that `pid` started itself, with the names that they show. */
export function childrenOf(pid: number): { pid: number; name: string }[] {
  const list = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], {
    encoding: 'utf8',
    maxBuffer: 16 * 1024 * 1024,
  });
  return [...list.matchAll(/^\s*(\d+)\s+(\d+)\s+(.*)$/gm)]
    .filter(([, , parent]) => Number(parent) === pid)
    .map(([, child, , name = '']) => ({ pid: Number(child), name }));
}
