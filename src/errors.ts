import { type HttpErrorCode, httpErrors, type Problem } from '@ide-orchestrator/protocol';

export interface AppErrorDetails {
  /** Fields that break the contract, for `validation_failed`. */
  errors?: readonly { path: string; message: string }[];
  /** Paths that stand in the way, for the two conflicts. */
  conflicts?: readonly string[];
  /** Named in `Retry-After`; 429 and 503 have a default. */
  retryAfterSeconds?: number;
  cause?: unknown;
}

/** An answer that is not a success, thrown where it is known and written out by the HTTP edge. `detail` is shown to the caller. */
export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: HttpErrorCode;
  readonly errors: readonly { path: string; message: string }[] | undefined;
  readonly conflicts: readonly string[] | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: HttpErrorCode, detail: string, details: AppErrorDetails = {}) {
    super(detail, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.errors = details.errors;
    this.conflicts = details.conflicts;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }
}

/** An answer of `application/problem+json`. */
export interface ProblemAnswer {
  status: number;
  body: Problem;
  /** Seconds for the header `Retry-After`; null = no such header. Never null for 429 and 503. */
  retryAfterSeconds: number | null;
}

/** Seconds to wait where the thrower knew no better: their advice in the catalogue refers to the header. */
const defaultRetryAfterSeconds: Readonly<Record<number, number>> = { 429: 1, 503: 5 };

/** RFC 9457 body and status of any thrown value. What is not an AppError is `internal_error`, and says nothing of itself. */
export function problemOf(error: unknown, context: { instance: string; requestId: string }): ProblemAnswer {
  const known =
    error instanceof AppError ? error : new AppError('internal_error', httpErrors.internal_error.advice);
  const { status, title } = httpErrors[known.code];
  const body: Problem = {
    type: `urn:ide-orchestrator:error:${known.code}`,
    title,
    status,
    code: known.code,
    detail: known.message,
    instance: context.instance,
    request_id: context.requestId,
  };
  if (known.errors !== undefined) body.errors = [...known.errors];
  if (known.conflicts !== undefined) body.conflicts = [...known.conflicts];
  return {
    status,
    body,
    retryAfterSeconds: known.retryAfterSeconds ?? defaultRetryAfterSeconds[status] ?? null,
  };
}

/** Whatever was thrown, as an Error, at each boundary that catches `unknown`. */
export function toError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  if (typeof thrown === 'string') return new Error(thrown);
  return new Error('A value that is no Error was thrown', { cause: thrown });
}
