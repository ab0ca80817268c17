/** What the service and, through it, a person is told about a run that did not work. */
export interface RunFailure {
  code: string;
  message: string;
  retryable: boolean;
}

/** An error whose code and message may leave the process: no stack, no address, no credential in it. */
export class RunnerError extends Error {
  readonly code: string;
  readonly retryable: boolean;

  constructor(code: string, message: string, options: { retryable?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'RunnerError';
    this.code = code;
    this.retryable = options.retryable ?? false;
  }
}
