import fs from 'node:fs';
import path from 'node:path';

export interface Counts {
  passed: number;
  failed: number;
  /** Titles of what failed, with their file. */
  failures: string[];
}

/** Counts the named tests (not their assertions) in the TAP files that a run has left. */
export const countResults = (folder: string): Counts => {
  const counts: Counts = { passed: 0, failed: 0, failures: [] };
  const names = fs.existsSync(folder) ? fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }) : [];
  for (const name of names.filter((name) => name.endsWith('.tap')).sort()) {
    for (const line of fs.readFileSync(path.join(folder, name), 'utf8').split('\n')) {
      const point = /^(not )?ok \d+(?: - (.*?))?(?: # (?!time)(?:(SKIP|TODO)\b)?.*| # time=.*)?$/i.exec(line);
      if (point === null || point[3] !== undefined) continue;
      if (point[1] === undefined) counts.passed += 1;
      else {
        counts.failed += 1;
        counts.failures.push(`${name.replace(/\.tap$/, '')}: ${point[2] ?? 'unnamed'}`);
      }
    }
  }
  return counts;
};
