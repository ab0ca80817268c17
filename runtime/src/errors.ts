import { httpErrors, runtimeHttpErrors } from '@ide-orchestrator/protocol';

/** The runtime's own codes, and the two that it shares with the orchestrator. */
const { invalid_position, malformed_request } = httpErrors;
const catalogue = { ...runtimeHttpErrors, invalid_position, malformed_request };

export type ProblemCode = keyof typeof catalogue;

/** What a caller is told: `{code, message}` with the catalogue's status. The message is safe to show. */
export class Problem extends Error {
  readonly status: number;

  constructor(
    readonly code: ProblemCode,
    message?: string,
    options?: { cause: unknown },
  ) {
    super(message ?? catalogue[code].title, options);
    this.name = 'Problem';
    this.status = catalogue[code].status;
  }
}

export function isProblemCode(code: unknown): code is ProblemCode {
  return typeof code === 'string' && Object.hasOwn(catalogue, code);
}

export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** What is thrown at a caller: problems as they are, anything else without its text. */
export function problemOf(thrown: unknown): Problem {
  if (thrown instanceof Problem) return thrown;
  return new Problem('not_ready', 'The runtime cannot answer now', { cause: thrown });
}
