import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger } from 'pino';

/** Names under which a credential could get into a line; one level deep and in request headers. */
const secretKeys = ['authorization', 'token', 'ticket', 'password', 'secret'];
/** Nobody may read our lines any more. */
const longestFlushMs = 1_000;
const credentialInQuery = /([?&](?:token|ticket)=)[^&#]*/gi;

/** Replaces the credential in a URL: viewers may carry `?token=` or `?ticket=`. */
export function withoutCredentials(url: string): string {
  return url.replace(credentialInQuery, '$1[redacted]');
}

/** What may be said of an error: its other fields can hold rows, statements and file contents. */
function errorFields(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code } = error as Error & { code?: unknown };
  const cause = error.cause instanceof Error ? errorFields(error.cause) : undefined;
  return { type: error.name, message: error.message, code, stack: error.stack, cause };
}

/**
 * Lines of JSON on standard output (or `destination`). Credentials are redacted by field name, and in the field `url`.
 * In production a line also names process and host.
 */
export function createLogger(options: {
  level: string;
  production: boolean;
  destination?: DestinationStream;
}): Logger {
  const settings = {
    level: options.level,
    ...(options.production ? {} : { base: null }),
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: {
      err: errorFields,
      url: (url: unknown) => (typeof url === 'string' ? withoutCredentials(url) : url),
    },
    redact: {
      paths: [
        ...secretKeys.flatMap((key) => [key, `*.${key}`, `*.headers.${key}`]),
        '*["sec-websocket-protocol"]',
        '*.headers["sec-websocket-protocol"]',
      ],
      censor: '[redacted]',
    },
  };
  return pino(settings, options.destination ?? standardOutput());
}

/**
 * Written behind the caller's back, so that a reader of our lines that stands still does not stop us. With a length of at
 * least 1 a flush tells when it is done.
 */
function standardOutput(): DestinationStream {
  return pino.destination({ dest: 1, sync: false, minLength: 1 });
}

/**
 * Resolves when the lines so far are written, at the latest after a second. A process that exits earlier writes what is
 * left beside a write that is under way: lines change places.
 */
export function writtenLines(log: Pick<Logger, 'flush'>): Promise<void> {
  return new Promise((resolve) => {
    const late = setTimeout(resolve, longestFlushMs);
    // Its error says that a pipe cannot be synchronised with a disk.
    log.flush(() => {
      clearTimeout(late);
      resolve();
    });
  });
}
