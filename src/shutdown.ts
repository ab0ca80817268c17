import closeWithGrace from 'close-with-grace';
import { toError } from './errors.js';
import { type Logger, writtenLines } from './telemetry/logger.js';

export interface Shutdown {
  /** Adds a step; steps run one after another in the order in which they were added. */
  add(name: string, step: () => void | Promise<void>): void;
  /** Begins the stop as a signal would. The process exits with 0 when it is done. */
  close(): void;
  /** Forgets the signal handlers and stops nothing. */
  uninstall(): void;
}

/**
 * Ends the process in order on a signal or an uncaught error: exit code 0 after a signal, 1 after an error, a failed step,
 * `graceMs` without an end, or a second signal. A failed step does not keep the later ones from running.
 */
export function createShutdown(options: {
  graceMs: number;
  log: Pick<Logger, 'info' | 'error' | 'flush'>;
}): Shutdown {
  const { log, graceMs } = options;
  const steps: { name: string; step: () => void | Promise<void> }[] = [];
  const handle = closeWithGrace(
    {
      delay: graceMs,
      logger: false,
      onSecondSignal: (signal) => log.error({ signal }, 'second signal, exiting'),
      onSecondError: (error) => log.error({ err: toError(error) }, 'second error, exiting'),
      onTimeout: (delay) => log.error({ grace_ms: delay }, 'stop took too long, exiting'),
    },
    async ({ err, signal }) => {
      if (err === undefined) log.info({ signal }, 'stopping');
      else log.error({ err }, 'uncaught error, stopping');
      let failed = 0;
      for (const { name, step } of steps) {
        try {
          await step();
        } catch (thrown) {
          failed++;
          log.error({ err: toError(thrown), step: name }, 'a step of the stop failed');
        }
      }
      log.info('stopped');
      await writtenLines(log);
      if (failed > 0) throw new Error(`${failed} steps of the stop failed`);
    },
  );
  return {
    add: (name, step) => void steps.push({ name, step }),
    close: () => handle.close(),
    uninstall: () => handle.uninstall(),
  };
}
