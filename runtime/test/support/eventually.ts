import { setTimeout as sleep } from 'node:timers/promises';

/** How long a busy machine may take until something is so, in ms. Who waits goes on as soon as it is. */
const patienceMs = 60_000;

/** Resolves once it is so; rejects after a minute. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`it did not come to this: ${what}`);
    await sleep(10);
  }
}
