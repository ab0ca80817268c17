/**
 * Every code that either service says, in one table: where it is said, what a person should do.
 * `docs/errors.md` lists the same codes; a test compares the two in both directions.
 */

/** Whether trying the same thing again can help: at once is never the advice. */
export type RetryAdvice = 'no' | 'after_change' | 'later' | 'reconnect';

export interface CatalogueEntry {
  /** HTTP status, where the code is said in an answer. */
  status?: number;
  /** WebSocket close code, where the code closes a socket. */
  close?: number;
  title: string;
  retry: RetryAdvice;
  advice: string;
}

/** Answers of the orchestrator's REST API and its upgrades (`application/problem+json`, member `code`). */
export const httpErrors = {
  malformed_request: {
    status: 400,
    title: 'Malformed request',
    retry: 'after_change',
    advice: 'Correct the request line, headers or query.',
  },
  malformed_json: {
    status: 400,
    title: 'Malformed JSON',
    retry: 'after_change',
    advice: 'Send one valid JSON object.',
  },
  invalid_position: {
    status: 400,
    title: 'Invalid position',
    retry: 'after_change',
    advice: '`after` is a whole number of 0 or more.',
  },
  unauthenticated: {
    status: 401,
    title: 'Authentication required',
    retry: 'after_change',
    advice: 'Send a valid, unexpired token or ticket.',
  },
  forbidden: {
    status: 403,
    title: 'Not allowed',
    retry: 'no',
    advice: 'Ask the owner of the proposal to do it.',
  },
  origin_not_allowed: {
    status: 403,
    title: 'Origin not allowed',
    retry: 'no',
    advice: 'Have the origin listed in CORS_ALLOWED_ORIGINS.',
  },
  not_found: {
    status: 404,
    title: 'Not found',
    retry: 'no',
    advice: 'Check the id; it may have been deleted, or belong to somebody else.',
  },
  draft_not_found: {
    status: 404,
    title: 'No draft',
    retry: 'after_change',
    advice: 'Write a draft or start a refinement first.',
  },
  version_not_found: {
    status: 404,
    title: 'No such version',
    retry: 'after_change',
    advice: 'List the versions and name one of them.',
  },
  method_not_allowed: {
    status: 405,
    title: 'Method not allowed',
    retry: 'after_change',
    advice: 'See the contract at /openapi.json.',
  },
  draft_conflict: {
    status: 409,
    title: 'The draft has moved on',
    retry: 'after_change',
    advice: 'Read the draft again and merge the files that are listed in `conflicts`.',
  },
  proposal_conflict: {
    status: 409,
    title: 'Files changed on both sides',
    retry: 'after_change',
    advice: 'Decide each file of `conflicts` in `resolutions`, or leave it out of `files`.',
  },
  already_resolved: {
    status: 409,
    title: 'Already decided',
    retry: 'no',
    advice: 'Read the proposal; its decision stands.',
  },
  proposal_not_completed: {
    status: 409,
    title: 'The proposal is not completed',
    retry: 'later',
    advice: 'Wait for `end`; a failed proposal can be retried, not decided.',
  },
  proposal_not_failed: {
    status: 409,
    title: 'The proposal has not failed',
    retry: 'no',
    advice: 'Only a failed proposal can be retried.',
  },
  not_processing: {
    status: 409,
    title: 'The proposal is not running',
    retry: 'no',
    advice: 'Only a processing proposal can be cancelled.',
  },
  idempotency_in_flight: {
    status: 409,
    title: 'The first request is still being answered',
    retry: 'later',
    advice: 'Repeat with the same key in a moment.',
  },
  payload_too_large: {
    status: 413,
    title: 'Body too large',
    retry: 'after_change',
    advice: 'Send less; the limit is named in `detail`.',
  },
  unsupported_media_type: {
    status: 415,
    title: 'Unsupported media type',
    retry: 'after_change',
    advice: 'Send `Content-Type: application/json`.',
  },
  validation_failed: {
    status: 422,
    title: 'The request breaks the contract',
    retry: 'after_change',
    advice: 'Correct the fields that are listed in `errors`.',
  },
  idempotency_mismatch: {
    status: 422,
    title: 'This key was used for another request',
    retry: 'after_change',
    advice: 'Use a new Idempotency-Key for a new request.',
  },
  rate_limited: {
    status: 429,
    title: 'Too many requests',
    retry: 'later',
    advice: 'Wait as long as Retry-After says.',
  },
  headers_too_large: {
    status: 431,
    title: 'Headers too large',
    retry: 'after_change',
    advice: 'Send fewer or shorter headers.',
  },
  internal_error: {
    status: 500,
    title: 'Something went wrong here',
    retry: 'later',
    advice: 'Try again; if it stays, report the request_id.',
  },
  runtime_unavailable: {
    status: 503,
    title: 'The agent runtime cannot be reached',
    retry: 'later',
    advice: 'Try again as Retry-After says; nothing was lost.',
  },
  database_unavailable: {
    status: 503,
    title: 'The database cannot be reached',
    retry: 'later',
    advice: 'Try again as Retry-After says; nothing was changed.',
  },
  overloaded: {
    status: 503,
    title: 'Overloaded',
    retry: 'later',
    advice: 'Try again as Retry-After says.',
  },
  shutting_down: {
    status: 503,
    title: 'This replica is stopping',
    retry: 'later',
    advice: 'Try again; another replica answers.',
  },
} as const satisfies Record<string, CatalogueEntry>;

/** Why a run failed: `error.code` of a proposal and of the `error` frame that precedes `end`. */
export const runErrors = {
  cancelled: {
    title: 'The run was cancelled',
    retry: 'no',
    advice: 'Start a new refinement when you want one.',
  },
  completed_without_files: {
    title: 'The run ended without any files',
    retry: 'after_change',
    advice: 'Say more precisely what should change.',
  },
  deadline_exceeded: {
    title: 'The run took too long',
    retry: 'later',
    advice: 'Retry the proposal, or ask for less at once.',
  },
  invalid_content: {
    title: 'The result could not be stored',
    retry: 'later',
    advice: 'Retry the proposal; the files held text that no database takes.',
  },
  invalid_frame: {
    title: 'The runtime sent frames that cannot be read',
    retry: 'later',
    advice: 'Retry the proposal; tell the operator of the runtime.',
  },
  lost: {
    title: 'The runtime no longer knows the run',
    retry: 'later',
    advice: 'Retry the proposal.',
  },
  oversized: {
    title: 'The runtime sent a frame over the limit',
    retry: 'after_change',
    advice: 'Ask for smaller files.',
  },
  poisoned: {
    title: 'The run brought down several replicas',
    retry: 'no',
    advice: 'Tell the operator; the proposal is not tried again.',
  },
  runtime_error: {
    title: 'The run failed',
    retry: 'later',
    advice: 'Read the message; retry the proposal when its cause is gone.',
  },
  runtime_rejected: {
    title: 'The runtime refused the run',
    retry: 'no',
    advice: 'Tell the operator; the same request is refused again.',
  },
  runtime_unavailable: {
    title: 'The runtime could not be reached',
    retry: 'later',
    advice: 'Retry the proposal when the runtime is back.',
  },
  stalled: {
    title: 'The run stopped sending',
    retry: 'later',
    advice: 'Retry the proposal.',
  },
} as const satisfies Record<string, CatalogueEntry>;

/** Codes in `warnings` of a proposal and of `end`. */
export const warningCodes = {
  invalid_content: {
    title: 'A file held text that cannot be stored',
    retry: 'no',
    advice: 'The file was left out.',
  },
  invalid_file: {
    title: 'A file was not in the agreed shape',
    retry: 'no',
    advice: 'The file was left out.',
  },
  invalid_frame: {
    title: 'A frame could not be read',
    retry: 'no',
    advice: 'The frame was left out; the files come from the runtime’s state.',
  },
  oversized_file: { title: 'A file was over the limit', retry: 'no', advice: 'The file was left out.' },
  too_many_files: {
    title: 'There were more files than allowed',
    retry: 'no',
    advice: 'The files beyond the limit were left out.',
  },
  unsafe_path: { title: 'A file had an unsafe path', retry: 'no', advice: 'The file was left out.' },
} as const satisfies Record<string, CatalogueEntry>;

/** Codes of `on_rejected`: a message from the viewer that went nowhere. The socket stays open. */
export const rejectionCodes = {
  forbidden: {
    title: 'Read-only viewers may not send this',
    retry: 'no',
    advice: 'Only the owner speaks to the run.',
  },
  not_streaming: {
    title: 'There is no open run to send this to',
    retry: 'later',
    advice: 'Send it again while the run streams; nothing was kept.',
  },
} as const satisfies Record<string, CatalogueEntry>;

/** Close codes of open sockets of the orchestrator. */
export const closeCodes = {
  done: { close: 1000, title: 'Done', retry: 'no', advice: 'The thread is finished.' },
  too_big: {
    close: 1009,
    title: 'Message too big',
    retry: 'after_change',
    advice: 'Send messages of at most 64 KiB.',
  },
  restarting: {
    close: 1012,
    title: 'The server restarts',
    retry: 'reconnect',
    advice: 'Come back with your position.',
  },
  overloaded: {
    close: 1013,
    title: 'Overloaded',
    retry: 'reconnect',
    advice: 'Come back later with your position.',
  },
  bad_message: {
    close: 4400,
    title: 'Bad message',
    retry: 'after_change',
    advice: 'Send JSON objects as text messages.',
  },
  token_expired: {
    close: 4401,
    title: 'Token expired or refused',
    retry: 'after_change',
    advice: 'Come back with a fresh token and your position.',
  },
  access_withdrawn: { close: 4403, title: 'Access withdrawn', retry: 'no', advice: 'Ask the owner.' },
  deleted: { close: 4404, title: 'Deleted', retry: 'no', advice: 'The workflow is gone.' },
  too_slow: {
    close: 4408,
    title: 'Too slow',
    retry: 'reconnect',
    advice: 'Come back with the position that the close reason names.',
  },
  flood: { close: 4429, title: 'Too many messages', retry: 'later', advice: 'Send fewer messages a second.' },
} as const satisfies Record<string, CatalogueEntry>;

/** Errors of the runtime's HTTP API, `{code, message}`. */
export const runtimeHttpErrors = {
  malformed_json: { status: 400, title: 'Malformed JSON', retry: 'after_change', advice: 'Send valid JSON.' },
  malformed_event: {
    status: 400,
    title: 'Malformed CloudEvent',
    retry: 'after_change',
    advice: 'Send a CloudEvent 1.0 of type agent.execute.',
  },
  thread_not_found: { status: 404, title: 'Unknown thread', retry: 'no', advice: 'There is no such run.' },
  not_found: { status: 404, title: 'Not found', retry: 'no', advice: 'See the API.' },
  job_mismatch: {
    status: 409,
    title: 'This job_id was used for another job',
    retry: 'no',
    advice: 'Use a new job_id for a new job.',
  },
  thread_gone: { status: 410, title: 'Cleaned up', retry: 'no', advice: 'Use a new job_id.' },
  payload_too_large: { status: 413, title: 'Body too large', retry: 'after_change', advice: 'Send less.' },
  unsupported_media_type: {
    status: 415,
    title: 'Unsupported media type',
    retry: 'after_change',
    advice: 'Send application/json or a CloudEvent.',
  },
  validation_failed: {
    status: 422,
    title: 'Invalid job',
    retry: 'after_change',
    advice: 'Correct what the message names.',
  },
  invalid_model: {
    status: 422,
    title: 'The model cannot be used',
    retry: 'after_change',
    advice: 'Name a model as provider:name and install its provider.',
  },
  queue_full: { status: 429, title: 'Queue full', retry: 'later', advice: 'Wait as Retry-After says.' },
  not_ready: {
    status: 503,
    title: 'Not ready',
    retry: 'later',
    advice: 'Wait as Retry-After says.',
  },
} as const satisfies Record<string, CatalogueEntry>;

export type HttpErrorCode = keyof typeof httpErrors;
export type RunErrorCode = keyof typeof runErrors;
export type WarningCode = keyof typeof warningCodes;
export type RejectionCode = keyof typeof rejectionCodes;
export type CloseReason = keyof typeof closeCodes;
export type RuntimeHttpErrorCode = keyof typeof runtimeHttpErrors;
