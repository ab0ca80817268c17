import fs from 'node:fs';
import path from 'node:path';

/** What must not happen, one line each. */
export interface Breaches {
  add(about: string, fault: string): void;
  count(): number;
  /** Keeps what helps to understand a breach. */
  keep(name: string, content: unknown): void;
}

/** Of each fault in the same words only so many are shown: the first ones tell it. */
const shown = 200;

export function createBreaches(deps: { folder: () => string | null; say: (line: string) => void }): Breaches {
  let count = 0;
  return {
    add(about, fault) {
      count++;
      const line = `BREACH ${about}: ${fault}`;
      if (count <= shown) deps.say(line);
      const folder = deps.folder();
      if (folder !== null)
        fs.appendFileSync(path.join(folder, 'breaches.log'), `${new Date().toISOString()} ${line}\n`);
    },
    count: () => count,
    keep(name, content) {
      const folder = deps.folder();
      if (folder !== null)
        fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify(content, null, 1));
    },
  };
}
