import { STATUS_CODES } from 'node:http';
import { Problem } from '../errors.js';
import type { HttpRequest, HttpResponse, us_socket_context_t } from './uws.js';

/** A request and its answer. The only code that touches a uWS response outside an upgrade. */
export interface Exchange {
  readonly method: string;
  readonly aborted: boolean;
  readonly query: URLSearchParams;
  /** By lower-case name; undefined where it is absent. */
  readonly headers: Readonly<Record<string, string>>;
  /** The path's parameter, decoded; null where it is no valid text. */
  readonly parameter: string | null;
  /** Answers once; a second call, or one after an abort, does nothing. */
  reply(status: number, body?: string | null, headers?: Record<string, string>): void;
  replyJson(status: number, value: unknown): void;
  replyProblem(problem: Problem): void;
  /** @throws {Problem} payload_too_large. An aborted request never resolves: nobody waits for it. */
  body(limitBytes: number): Promise<Buffer>;
  /** Makes it a WebSocket with this data; nothing where the caller has left. */
  upgrade<Data>(data: Data): void;
  /** Answered already: nothing may be done with it. */
  readonly isRefused: boolean;
}

/**
 * Copies what is needed of the request (it is dead after the handler's return) and hears aborts before
 * anything waits.
 * @throws {Problem} malformed_request, for headers in which two readers would see two requests.
 */
export function createExchange(
  res: HttpResponse,
  req: HttpRequest,
  deps: { context?: us_socket_context_t | undefined; onReply: (method: string, status: number) => void },
): Exchange {
  let aborted = false;
  let answered = false;
  let onAbort: (() => void) | null = null;
  res.onAborted(() => {
    aborted = true;
    onAbort?.();
  });
  const method = req.getMethod().toUpperCase();
  const query = new URLSearchParams(req.getQuery() ?? '');
  const parameter = decoded(req.getParameter(0) ?? '');
  const headers: Record<string, string> = Object.create(null);
  const once = new Set(['content-length', 'host', 'transfer-encoding', 'content-type']);
  let isAmbiguous = false;
  req.forEach((name, value) => {
    if (name in headers && once.has(name)) isAmbiguous = true;
    headers[name] = value;
  });
  const transfer = headers['transfer-encoding'];
  if (transfer !== undefined && (transfer.toLowerCase() !== 'chunked' || 'content-length' in headers))
    isAmbiguous = true;
  if ('content-length' in headers && !/^\d{1,15}$/.test(headers['content-length'] ?? '')) isAmbiguous = true;

  const reply = (
    status: number,
    body: string | null,
    extra: Record<string, string> = {},
    closes = false,
  ): void => {
    if (aborted || answered) return;
    answered = true;
    deps.onReply(method, status);
    res.cork(() => {
      res.writeStatus(`${status} ${STATUS_CODES[status] ?? ''}`);
      for (const [name, value] of Object.entries(extra)) res.writeHeader(name, value);
      if (body === null) res.endWithoutBody(undefined, closes);
      else res.end(body, closes);
    });
  };
  const replyProblem = (problem: Problem, closes = false): void => {
    const headers: Record<string, string> = { 'content-type': 'application/json' };
    if (problem.status === 429 || problem.status === 503) headers['retry-after'] = '1';
    const { code, message } = problem;
    reply(problem.status, JSON.stringify({ code, message }), headers, closes);
  };

  const exchange: Exchange = {
    method,
    query,
    headers,
    parameter,
    get aborted() {
      return aborted;
    },
    reply: (status, body = null, extra) => reply(status, body, extra),
    replyJson: (status, value) =>
      reply(status, typeof value === 'string' ? value : JSON.stringify(value), {
        'content-type': 'application/json',
      }),
    // What is left of a body that was refused would be read as the next request.
    replyProblem: (problem) => replyProblem(problem, problem.status === 413),
    body(limitBytes) {
      return new Promise((resolve, reject) => {
        const chunks: Buffer[] = [];
        let size = 0;
        const refuse = (): void => {
          chunks.length = 0;
          reject(new Problem('payload_too_large', `The body must be at most ${limitBytes} bytes`));
        };
        onAbort = () => {
          chunks.length = 0;
        };
        if (Number(headers['content-length'] ?? 0) > limitBytes) {
          refuse();
          return;
        }
        res.onData((chunk, isLast) => {
          size += chunk.byteLength;
          if (size > limitBytes) {
            refuse();
            return;
          }
          // The chunk is detached after this call.
          chunks.push(Buffer.from(chunk.slice(0)));
          if (isLast)
            resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
        });
      });
    },
    upgrade(data) {
      const { context } = deps;
      if (aborted || answered || context === undefined) return;
      answered = true;
      deps.onReply(method, 101);
      // Not inside `cork`: after its callback uWS reads this connection as a response once more and may end it.
      res.upgrade(
        data,
        headers['sec-websocket-key'] ?? '',
        headers['sec-websocket-protocol'] ?? '',
        headers['sec-websocket-extensions'] ?? '',
        context,
      );
    },
    get isRefused() {
      return answered;
    },
  };
  if (isAmbiguous) replyProblem(new Problem('malformed_request', 'The headers contradict each other'), true);
  return exchange;
}

/** Text of a path's part: null where the escapes are broken or the text could be no id. */
function decoded(part: string): string | null {
  try {
    const text = decodeURIComponent(part);
    return text.length > 0 && text.length <= 255 && !text.includes('\u0000') ? text : null;
  } catch {
    return null;
  }
}
