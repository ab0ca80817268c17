import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger } from 'pino';

/**
 * One JSON line per fact: a constant message, data in fields.
 * @param destination where lines go instead of standard output (tests).
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: { service: 'deepagents-runtime' },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  // Behind the caller's back; with a length of at least 1 a flush tells when it is done.
  return pino(options, destination ?? pino.destination({ dest: 1, sync: false, minLength: 1 }));
}

/** Resolves when the lines so far are written, in their order; at the latest after a second, if nobody reads them. */
export function writtenLines(logger: Logger): Promise<void> {
  return new Promise((resolve) => {
    const late = setTimeout(resolve, 1_000);
    // Its error says that a pipe cannot be synchronised with a disk.
    logger.flush(() => {
      clearTimeout(late);
      resolve();
    });
  });
}
