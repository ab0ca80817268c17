import fs from 'node:fs';
import path from 'node:path';

/** Said while parts are broken, and told to the caller as 503: what it means for people is judged by its effects. */
const passing = /^(request failed|upgrade failed|the start failed)$/;
const away = /^(database_unavailable|runtime_unavailable|shutting_down|overloaded|not_ready)$/;
/** Only warnings, but nothing that PostgreSQL, the runtime or the network could be blamed for. */
const broken = /^(a thread actor broke|a pipeline broke)$/;

interface Line {
  level?: string;
  msg?: string;
  status?: number;
  err?: { code?: string; message?: string };
  migration?: string;
}

/** Whether a line of a part's log says that something inside of it broke. */
export function isFault({ level, msg = '', status, err, migration = '' }: Line): boolean {
  if (broken.test(msg)) return true;
  if (level !== 'error' && level !== 'fatal') return false;
  // A start for which PostgreSQL was not there; the next one is made at once.
  if (msg === 'migrating') return !/^could not connect/.test(migration);
  if (!passing.test(msg)) return true;
  return msg !== 'the start failed' && status !== 503 && !away.test(err?.code ?? '');
}

/** What the parts' logs say that no failure around them excuses, each in the same words once for each part. */
export function faultsOfLogs(folder: string): string[] {
  const faults = new Map<string, number>();
  for (const file of fs.readdirSync(folder)) {
    if (!/^(orchestrator-\d|runtime)\.log$/.test(file)) continue;
    for (const text of fs.readFileSync(path.join(folder, file), 'utf8').split('\n')) {
      const line = lineOf(text);
      if (line === null || !isFault(line)) continue;
      const fault = `${file}: ${line.msg} (${line.err?.message ?? line.status ?? ''})`;
      faults.set(fault, (faults.get(fault) ?? 0) + 1);
    }
  }
  return [...faults].map(([fault, count]) => `${fault}, ${count} times`);
}

/** A process that is killed may leave half a line; other text is not ours. */
function lineOf(text: string): Line | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Line;
  } catch {
    return null;
  }
}
