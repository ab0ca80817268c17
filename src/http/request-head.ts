import type { HttpRequest } from 'uWebSockets.js';
import { setImmediate } from 'node:timers/promises';
import type { HttpErrorCode } from '@ide-orchestrator/protocol';
import { AppError } from '../errors.js';

/** What is kept of a request: uWS takes the request object back when the handler returns. */
export interface RequestHead {
  /** Upper case. */
  method: string;
  /** As it came, percent-encoded, without the query. */
  path: string;
  query: string;
  /** By lower-case name. */
  headers: Readonly<Record<string, string | undefined>>;
  /** Why the request must not be answered in the ordinary way; the connection is closed after it. */
  fault: { code: HttpErrorCode; detail: string } | null;
}

/** uWS takes the first of two and goes on; a proxy in front may take the other, and see other requests than we do. */
const onlyOnce = new Set([
  'content-length',
  'host',
  'transfer-encoding',
  'authorization',
  'content-type',
  'origin',
  'idempotency-key',
]);

/** Copies line and headers, and judges what uWS lets pass. */
export function readHead(req: HttpRequest, limits: { headerBytes: number }): RequestHead {
  const headers: Record<string, string | undefined> = Object.create(null);
  let bytes = req.getUrl().length;
  let fault: RequestHead['fault'] = null;
  req.forEach((name, value) => {
    bytes += name.length + value.length + 4;
    if (headers[name] === undefined) headers[name] = value;
    else if (onlyOnce.has(name)) fault ??= malformed(`The header ${name} was sent twice.`);
    else headers[name] = `${headers[name]}, ${value}`;
  });
  // Undefined where there is none, whatever its type says.
  const query: string = req.getQuery() ?? '';
  bytes += query.length;
  if (bytes > limits.headerBytes) {
    fault ??= {
      code: 'headers_too_large',
      detail: `Request line and headers may hold ${limits.headerBytes} bytes.`,
    };
  }
  const transferEncoding = headers['transfer-encoding'];
  const contentLength = headers['content-length'];
  if (transferEncoding !== undefined && transferEncoding.toLowerCase() !== 'chunked') {
    fault ??= malformed('The only Transfer-Encoding that is understood is chunked.');
  }
  if (transferEncoding !== undefined && contentLength !== undefined) {
    fault ??= malformed('Content-Length and Transfer-Encoding exclude each other.');
  }
  if (contentLength !== undefined && !/^\d{1,15}$/.test(contentLength)) {
    fault ??= malformed('Content-Length is not a number.');
  }
  if ((headers.host ?? '') === '') fault ??= malformed('The header Host is missing.');
  return { method: req.getCaseSensitiveMethod().toUpperCase(), path: req.getUrl(), query, headers, fault };
}

/**
 * Throws the fault of a head as AppError, in a later turn of the loop. uWS goes on parsing what arrived behind the
 * request in the same read and calls the handlers for it, also where the answer before said that it ends the
 * connection; while an answer is pending it ends the connection instead. So nothing that was smuggled in is done.
 */
export async function refuseFault(head: Pick<RequestHead, 'fault'>): Promise<void> {
  if (head.fault === null) return;
  await setImmediate();
  throw new AppError(head.fault.code, head.fault.detail);
}

function malformed(detail: string): RequestHead['fault'] {
  return { code: 'malformed_request', detail };
}

/** The caller's own id where it is harmless in a header and a log line, else one of ours. */
export function requestIdOf(head: Pick<RequestHead, 'headers'>, ids: () => string): string {
  const sent = head.headers['x-request-id'];
  return sent !== undefined && /^[\w.:/+=@-]{1,128}$/.test(sent) ? sent : ids();
}
