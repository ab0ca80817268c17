import { setTimeout as wait } from 'node:timers/promises';

/** How long a busy machine may take until something is so, in ms. Who waits goes on as soon as it is. */
export const PATIENCE_MS = 60_000;

type Holds = () => boolean | Promise<boolean>;

/** Resolves once `holds` is true; after `withinMs` regardless, so that the assertion that follows says what is wrong. */
export async function until(holds: Holds, withinMs = PATIENCE_MS): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await holds()) && performance.now() < deadline) await wait(5);
}

/** Resolves once it is so; rejects after `withinMs`. */
export async function eventually(what: string, holds: Holds, withinMs = PATIENCE_MS): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`it did not come to this: ${what}`);
    await wait(10);
  }
}
