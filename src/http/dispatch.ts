import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import type { Tracer } from '@opentelemetry/api';
import { SpanKind } from '@opentelemetry/api';
import type { CommonQueryMethods } from 'slonik';
import { AppError, problemOf, toError } from '../errors.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent, traceIdOf, withSpan } from '../telemetry/tracing.js';
import type { Authenticator } from './authenticate.js';
import type { Cors } from './cors.js';
import { asRefusal, type DatabaseGate } from './database-gate.js';
import { type Body, type Exchange, guarded, openExchange, type Reply } from './exchange.js';
import { answerOnce, idempotencyKeyOf } from './idempotency.js';
import { jsonOf } from './json-body.js';
import type { KnownUsers } from './known-users.js';
import type { RateLimits } from './rate-limits.js';
import { type RequestHead, readHead, refuseFault, requestIdOf } from './request-head.js';
import type { Answer, Call, Route } from './route.js';
import type { Match, Router } from './router.js';
import { parsedWith, queryOf } from './validate.js';

export interface DispatchDeps {
  router: Router;
  cors: Cors;
  authenticator: Authenticator;
  rateLimits: RateLimits;
  users: KnownUsers;
  db: CommonQueryMethods;
  gate: DatabaseGate;
  metrics: Pick<Metrics, 'httpRequestsTotal' | 'httpRequestDurationSeconds'>;
  log: Logger;
  tracer: Tracer;
  ids: () => string;
  isStopping: () => boolean;
  limits: { headerBytes: number; bodyBytes: number; bodyDeadlineMs: number };
}

export interface Dispatch {
  handle(res: HttpResponse, req: HttpRequest): void;
  /** Requests that have no answer yet. */
  inFlight(): number;
}

/** What is known of a request for its log line and metrics when it ends. */
interface Trail {
  requestId: string;
  route: string;
  userId: string | null;
  traceId: string | null;
}

const nobody = { userId: '', expiresAt: 0 };
const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** The way of every request: head, origin, route, token, limits, body, handler, answer; one log line at its end. */
export function createDispatch(deps: DispatchDeps): Dispatch {
  let inFlight = 0;
  const begin = (exchange: Exchange, req: HttpRequest, startedAt: number) => {
    const head = readHead(req, deps.limits);
    const match = deps.router.match(head.method, head.path);
    const trail: Trail = {
      requestId: requestIdOf(head, deps.ids),
      route: routeOf(match),
      userId: null,
      traceId: null,
    };
    exchange.onAborted(() => finish(deps, head, trail, startedAt, 'aborted', null));
    inFlight += 1;
    // Everything up to the first await of the answer runs in this turn: the body is listened to in it.
    answer(deps, exchange, head, match, trail)
      .then(({ reply, error }) => {
        const last = deps.isStopping() ? { ...reply, close: true } : reply;
        if (exchange.send(last)) finish(deps, head, trail, startedAt, String(reply.status), error);
      })
      .catch((error: unknown) => {
        // Not even the problem could be written: the answer must still end, or the socket hangs.
        deps.log.error({ err: toError(error), request_id: trail.requestId }, 'no answer could be made');
        exchange.send({ status: 500, headers: {}, body: null, close: true });
      })
      .finally(() => {
        inFlight -= 1;
      });
  };
  const handle = (res: HttpResponse, req: HttpRequest) => {
    const startedAt = performance.now();
    const exchange = openExchange(res, { withoutBody: req.getCaseSensitiveMethod() === 'HEAD' });
    guarded(
      exchange,
      () => begin(exchange, req, startedAt),
      (error) => deps.log.error({ err: toError(error) }, 'a request could not be read'),
    );
  };
  return { handle, inFlight: () => inFlight };
}

function routeOf(match: Match): string {
  if (match.kind === 'route') return match.route.path;
  return (match.kind === 'none' ? match.pattern : null) ?? 'unmatched';
}

async function answer(
  deps: DispatchDeps,
  exchange: Exchange,
  head: RequestHead,
  match: Match,
  trail: Trail,
): Promise<{ reply: Reply; error: Error | null }> {
  const common = { ...deps.cors.headersFor(head.headers.origin), 'X-Request-Id': trail.requestId };
  try {
    const result = await withSpan(
      deps.tracer,
      `${methods.has(head.method) ? head.method : 'other'} ${trail.route}`,
      {
        parent: contextFromTraceparent(head.headers.traceparent),
        kind: SpanKind.SERVER,
        attributes: {
          'http.route': trail.route,
          'http.request.method': head.method,
          request_id: trail.requestId,
        },
      },
      async (span, spanContext) => {
        trail.traceId = traceIdOf(spanContext);
        const made = await handled(deps, exchange, head, match, trail);
        span.setAttribute('http.response.status_code', made.status);
        return made;
      },
    );
    return { reply: replyOf(result, common), error: null };
  } catch (thrown) {
    const error = asRefusal(thrown);
    const { status, body, retryAfterSeconds } = problemOf(error, {
      instance: head.path,
      requestId: trail.requestId,
    });
    const headers: Record<string, string> = { ...common, 'Content-Type': 'application/problem+json' };
    if (retryAfterSeconds !== null) headers['Retry-After'] = String(retryAfterSeconds);
    if (status === 401) headers['WWW-Authenticate'] = 'Bearer realm="ide-orchestrator"';
    if (status === 405 && match.kind === 'other_method') headers.Allow = match.allow.join(', ');
    // What follows on such a connection may not be what its sender meant.
    const close = head.fault !== null || status === 413;
    return {
      reply: { status, headers, body: JSON.stringify(body), close },
      error: status >= 500 ? toError(thrown) : null,
    };
  }
}

async function handled(
  deps: DispatchDeps,
  exchange: Exchange,
  head: RequestHead,
  match: Match,
  trail: Trail,
): Promise<Answer> {
  // Not awaited where there is no fault: the body must be listened to in this turn.
  if (head.fault !== null) await refuseFault(head);
  const { origin } = head.headers;
  if (head.path.startsWith('/api/') && !deps.cors.allows(origin)) {
    throw new AppError('origin_not_allowed', 'Pages of this origin may not call here.');
  }
  if (match.kind === 'none') throw new AppError('not_found', 'There is nothing at this address.');
  if (match.kind === 'other_method') {
    if (head.method !== 'OPTIONS')
      throw new AppError('method_not_allowed', `Allowed here: ${match.allow.join(', ')}.`);
    if (origin === undefined || head.headers['access-control-request-method'] === undefined) {
      return { status: 204, headers: { Allow: match.allow.join(', ') } };
    }
    return {
      status: 204,
      headers: deps.cors.allows(origin) ? deps.cors.preflightHeaders(origin, match.allow) : {},
    };
  }
  const { route, params } = match;
  const readsBody = route.body !== undefined;
  if (readsBody && Number(head.headers['content-length'] ?? 0) > deps.limits.bodyBytes) throw tooLarge(deps);
  const body = readsBody
    ? exchange.readBody({ bytes: deps.limits.bodyBytes, deadlineMs: deps.limits.bodyDeadlineMs })
    : null;

  const identity = await identityOf(deps, exchange, head, route);
  if (route.access === 'token') {
    trail.userId = identity.userId;
    await deps.rateLimits.user(identity.userId);
  }
  const query = route.query === undefined ? undefined : parsedWith(route.query, queryOf(head.query));
  const sent =
    body === null ? undefined : parsedWith(route.body ?? fail(), jsonOf(bytesOf(await body, deps), head));
  const key = idempotencyKeyOf(head, route, sent);
  const call: Call<unknown, unknown> = {
    params,
    body: sent,
    query,
    identity,
    db: deps.db,
    key,
    requestId: trail.requestId,
    afterCommit: (effect) => effect(),
  };
  if (route.access !== 'token') return route.handle(call);
  if (route.waitsElsewhere) {
    await deps.gate(() => deps.users.seen(deps.db, identity.userId));
    return route.handle(call);
  }
  return deps.gate(async () => {
    await deps.users.seen(deps.db, identity.userId);
    if (key === null || route.idempotency !== 'answer') return route.handle(call);
    return answerOnce(deps, call, key, head.path, route.handle);
  });
}

/** Without a valid token the address is counted, so that guessing costs the guesser and nobody else behind the same token. */
async function identityOf(deps: DispatchDeps, exchange: Exchange, head: RequestHead, route: Route) {
  if (route.access === 'probe') return nobody;
  if (route.access === 'open') {
    await deps.rateLimits.address(exchange.remoteAddress);
    return nobody;
  }
  try {
    return await deps.authenticator.verifyHeader(head.headers.authorization);
  } catch (error) {
    if (error instanceof AppError && error.code === 'unauthenticated') {
      await deps.rateLimits.address(exchange.remoteAddress);
    }
    throw error;
  }
}

function bytesOf(body: Body, deps: DispatchDeps): Buffer {
  if (body.kind === 'bytes') return body.bytes;
  if (body.kind === 'too_large') throw tooLarge(deps);
  throw new AppError('malformed_request', 'The body did not arrive in time.');
}

function tooLarge(deps: DispatchDeps): AppError {
  return new AppError('payload_too_large', `A body may hold ${deps.limits.bodyBytes} bytes.`);
}

function fail(): never {
  throw new Error('a body was read for a route without a schema');
}

function replyOf(result: Answer, common: Record<string, string>): Reply {
  const headers = { ...common, ...result.headers };
  if (result.body === undefined) return { status: result.status, headers, body: null };
  if (typeof result.body === 'string') return { status: result.status, headers, body: result.body };
  return {
    status: result.status,
    headers: { ...headers, 'Content-Type': headers['Content-Type'] ?? 'application/json' },
    body: JSON.stringify(result.body),
  };
}

function finish(
  deps: DispatchDeps,
  head: RequestHead,
  trail: Trail,
  startedAt: number,
  status: string,
  error: Error | null,
): void {
  const method = methods.has(head.method) ? head.method : 'other';
  const seconds = (performance.now() - startedAt) / 1000;
  deps.metrics.httpRequestsTotal.inc({ method, route: trail.route, status });
  deps.metrics.httpRequestDurationSeconds.observe({ method, route: trail.route }, seconds);
  const fields = {
    request_id: trail.requestId,
    trace_id: trail.traceId,
    user_id: trail.userId,
    method: head.method,
    path: head.path,
    route: trail.route,
    status,
    duration_ms: Math.round(seconds * 100_000) / 100,
  };
  if (error !== null) deps.log.error({ ...fields, err: error }, 'request failed');
  else if (trail.route === '/health' || trail.route === '/ready') deps.log.debug(fields, 'request');
  else deps.log.info(fields, 'request');
}
