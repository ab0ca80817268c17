import { findFreePort } from '../../src/embedded/free-port.js';

/** Gives out ports of 127.0.0.1 on which nobody listens, each once: whoever is killed comes back at its port. */
export function createFixedPorts(): () => Promise<number> {
  const given = new Set<number>();
  return async () => {
    for (;;) {
      const port = await findFreePort();
      if (given.has(port)) continue;
      given.add(port);
      return port;
    }
  };
}
