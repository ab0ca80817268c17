import { setTimeout as wait } from 'node:timers/promises';

/** Resolves once `holds` is true; after `withinMs` regardless, so that the assertion that follows says what is wrong. */
export async function until(holds: () => boolean, withinMs = 2_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!holds() && performance.now() < deadline) await wait(2);
}
