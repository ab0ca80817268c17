import './library-settings.js';
import { isGraphDrained } from '@langchain/langgraph';

import type { RunOutcome } from '../agent-runner.js';
import { StoreError } from './checkpoints.js';
import { type RunFailure, RunnerError } from './runner-error.js';

/** How a run ended that threw: `failed` with what may be told, or `interrupted`, to be resumed. */
export type Stop = { status: 'failed'; error: RunFailure } | Extract<RunOutcome, { status: 'interrupted' }>;

interface Told {
  name: string;
  message: string;
  status: number | undefined;
  code: string | undefined;
  lcCode: string | undefined;
}

/**
 * Judges what the agents threw. Errors arrive wrapped about five deep, so the whole chain of causes is
 * looked at. The messages are ours: those of the packages hold addresses, and sometimes keys.
 */
export function stopOf(thrown: unknown): Stop {
  const chain = causesOf(thrown);
  if (chain.some(isGraphDrained)) return { status: 'interrupted', reason: 'drained' };
  const store = chain.find((error) => error instanceof StoreError);
  if (store instanceof StoreError) {
    if (store.away) return { status: 'interrupted', reason: 'store_unavailable' };
    return failed('checkpoint_rejected', 'The state of the run could not be stored.', false);
  }
  const own = chain.find((error) => error instanceof RunnerError);
  if (own instanceof RunnerError) return failed(own.code, own.message, own.retryable);
  const told = chain.map(toldOf);
  return limitReached(told) ?? providerRefused(told) ?? providerAway(told) ?? unknownFailure();
}

function limitReached(chain: readonly Told[]): Stop | null {
  if (chain.some(({ lcCode }) => lcCode === 'GRAPH_RECURSION_LIMIT')) {
    return failed(
      'recursion_limit',
      'The agents took more steps than a run may have. Ask for less at once.',
      false,
    );
  }
  return null;
}

function providerRefused(chain: readonly Told[]): Stop | null {
  const status = chain.findLast((error) => error.status !== undefined)?.status;
  const keyMissing = chain.some(({ message }) =>
    /api.?key.*(not found|missing|must be|required)|(missing|no).*api.?key|could not resolve authentication/i.test(
      message,
    ),
  );
  if (status === 401 || status === 403 || keyMissing) {
    return failed(
      'model_authentication',
      "The model's provider refused the credentials. Check the API key of the configured model.",
      false,
    );
  }
  if (status === 429) {
    return failed(
      'model_rate_limited',
      "The model's provider is limiting requests. Try again later, or check the account's quota.",
      true,
    );
  }
  if (status === 404) {
    return failed(
      'model_not_found',
      'The provider does not know the configured model. Check its name.',
      false,
    );
  }
  if (status === 408) return failed('model_timeout', 'The model did not answer in time. Try again.', true);
  if (status !== undefined && status >= 500) {
    return failed('model_error', "The model's provider had an error of its own. Try again later.", true);
  }
  if (status !== undefined && status >= 400) {
    return failed(
      'model_rejected',
      "The model's provider refused the request. It may be too long for the model.",
      false,
    );
  }
  return null;
}

const lostConnection =
  /^(ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|UND_ERR_[A-Z_]+)$/;

function providerAway(chain: readonly Told[]): Stop | null {
  if (chain.some(({ name }) => name === 'TimeoutError' || name === 'APIConnectionTimeoutError')) {
    return failed('model_timeout', 'The model did not answer in time. Try again.', true);
  }
  const lost = chain.some(
    ({ name, code, message }) =>
      name === 'APIConnectionError' ||
      lostConnection.test(code ?? '') ||
      /^(Connection error\.?|terminated|fetch failed|Premature close)$/i.test(message),
  );
  return lost ? failed('model_unreachable', 'The model cannot be reached. Try again later.', true) : null;
}

function unknownFailure(): Stop {
  return failed('agent_error', 'The agents stopped with an unexpected error. Try again.', true);
}

function failed(code: string, message: string, retryable: boolean): Stop {
  return { status: 'failed', error: { code, message, retryable } };
}

/** The error and its causes, outermost first; a chain that bites its own tail ends. */
export function causesOf(thrown: unknown): unknown[] {
  const chain: unknown[] = [];
  let next: unknown = thrown;
  while (next !== undefined && next !== null && !chain.includes(next) && chain.length < 20) {
    chain.push(next);
    const inner: unknown[] = next instanceof AggregateError ? next.errors : [];
    next = typeof next === 'object' && 'cause' in next ? next.cause : undefined;
    next ??= inner[0];
  }
  return chain;
}

function toldOf(error: unknown): Told {
  const loose = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  return {
    name: typeof loose.name === 'string' ? loose.name : '',
    message: typeof loose.message === 'string' ? loose.message : '',
    status: typeof loose.status === 'number' ? loose.status : undefined,
    code: typeof loose.code === 'string' ? loose.code : undefined,
    lcCode: typeof loose.lc_error_code === 'string' ? loose.lc_error_code : undefined,
  };
}
