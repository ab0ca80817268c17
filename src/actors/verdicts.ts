import type { ProposalError, RuntimeState } from '@ide-orchestrator/protocol';
import type { InvokeAnswer, ProposalEvent, Verdict } from './proposal-types.js';

/** Failures after which another attempt would meet the same. */
const NEVER_RETRIED = new Set([
  'cancelled',
  'completed_without_files',
  'oversized',
  'invalid_frame',
  'invalid_content',
  'runtime_rejected',
  'poisoned',
]);

/** Whether another attempt may do better. */
export function isRetryable(error: ProposalError): boolean {
  return error.retryable && !NEVER_RETRIED.has(error.code);
}

const failure = (code: string, message: string, retryable: boolean): ProposalError => ({
  code,
  message,
  retryable,
});

/** What the orchestrator itself says of a failure; the runtime's words are its own. */
export const cancelled = failure('cancelled', 'The run was cancelled.', false);
export const lost = failure('lost', 'The runtime no longer knows the run.', true);
export const stalled = failure('stalled', 'The run stopped sending.', true);
export const oversized = failure('oversized', 'The runtime sent a frame over the limit.', false);
export const unreachable = failure('runtime_unavailable', 'The runtime could not be reached in time.', true);
export const poisoned = failure('poisoned', 'The run brought down one replica after the other.', false);
export const tooLong = failure('deadline_exceeded', 'The run took too long.', true);

/** `byRuntime`: the runtime itself ended the run. */
export const failed = (error: ProposalError, byRuntime = false): Verdict => ({
  kind: 'failed',
  error,
  byRuntime,
});

/** The time is over, and the runtime is asked how the run ended before this is committed. */
export const overdue = (error: ProposalError): Verdict => ({ kind: 'overdue', error });

/** The error of a `runtime.failed` fact in the shape that is stored; a missing `retryable` counts as true. */
export function errorOf(event: Extract<ProposalEvent, { type: 'runtime.failed' }>): ProposalError {
  return failure(
    event.error.code ?? 'runtime_error',
    event.error.message ?? 'The run failed without saying why.',
    event.error.retryable ?? true,
  );
}

/** The error of a run whose end only `state` told. */
export function errorOfState(state: RuntimeState): ProposalError {
  const { code = 'runtime_error', message = 'The run failed.', retryable = true } = state.error ?? {};
  return { code, message, retryable };
}

/** A certain answer to an invoke that is not the start of a run. */
export function refusedVerdict(answer: InvokeAnswer): Verdict {
  switch (answer.kind) {
    case 'refused':
      return { kind: 'refused', error: failure('runtime_unavailable', answer.message, true) };
    case 'rejected':
      return failed(failure('runtime_rejected', answer.message, false));
    default:
      return failed(lost);
  }
}

/** Whether the run itself told its end, so that its epoch goes on to it. */
export const endedByRuntime = (verdict: Verdict | null) =>
  verdict?.kind === 'completed' || (verdict?.kind === 'failed' && verdict.byRuntime);
