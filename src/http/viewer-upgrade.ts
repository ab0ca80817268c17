import type { HttpRequest, HttpResponse, us_socket_context_t } from 'uWebSockets.js';
import type { CommonQueryMethods } from 'slonik';
import { findThreadFor } from '../db/proposals.js';
import { AppError, problemOf, toError } from '../errors.js';
import type { ViewerPosition } from '../streams/viewer.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { contextFromTraceparent, traceIdOf } from '../telemetry/tracing.js';
import type { Authenticator } from './authenticate.js';
import type { Cors } from './cors.js';
import { asRefusal, type DatabaseGate } from './database-gate.js';
import { type Exchange, guarded, openExchange } from './exchange.js';
import type { KnownUsers } from './known-users.js';
import type { RateLimits } from './rate-limits.js';
import { type RequestHead, readHead, refuseFault, requestIdOf } from './request-head.js';
import { credentialOf, protocolsOf, provenBy } from './viewer-credential.js';

/** A viewer that was let in: everything that its socket needs to know. */
export interface Admission {
  viewerId: string;
  threadId: string;
  proposalId: string;
  userId: string;
  access: 'owner' | 'viewer';
  accessVersion: number;
  /** Milliseconds since 1970: the session ends then unless a fresh token comes. */
  expiresAt: number;
  position: ViewerPosition;
  traceId: string;
  /** Gives the user's place among open sockets back. */
  release: () => void;
}

export interface UpgradeDeps {
  db: CommonQueryMethods;
  gate: DatabaseGate;
  authenticator: Authenticator;
  rateLimits: RateLimits;
  users: KnownUsers;
  cors: Cors;
  metrics: Pick<Metrics, 'httpRequestsTotal'>;
  log: Logger;
  ids: () => string;
  traceIds: () => string;
  isStopping: () => boolean;
  headerBytes: number;
}

const viewerRoute = '/api/ws/refinements/{thread_id}';
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/**
 * Judges an upgrade; only HTTP statuses here (400, 401, 403, 404, 429, 503), never an open socket that is closed at once.
 * `admit` gets the admission with the socket's `open`.
 */
export function createUpgrade(
  deps: UpgradeDeps,
): (res: HttpResponse, req: HttpRequest, context: us_socket_context_t) => void {
  const begin = (exchange: Exchange, req: HttpRequest, context: us_socket_context_t) => {
    const head = readHead(req, deps);
    const requestId = requestIdOf(head, deps.ids);
    const upgradeHead = {
      key: head.headers['sec-websocket-key'] ?? '',
      protocol: protocolsOf(head).includes('bearer') ? 'bearer' : '',
      extensions: '',
      context,
    };
    const count = (status: number) =>
      deps.metrics.httpRequestsTotal.inc({ method: 'GET', route: viewerRoute, status: String(status) });
    judge(deps, exchange, head).then(
      (admission) => {
        if (exchange.upgrade(admission, upgradeHead, upgradeHead.protocol)) count(101);
        else admission.release();
      },
      (thrown: unknown) => {
        const error = asRefusal(thrown);
        const { status, body, retryAfterSeconds } = problemOf(error, { instance: head.path, requestId });
        const headers: Record<string, string> = {
          ...deps.cors.headersFor(head.headers.origin),
          'Content-Type': 'application/problem+json',
          'X-Request-Id': requestId,
        };
        if (retryAfterSeconds !== null) headers['Retry-After'] = String(retryAfterSeconds);
        if (status === 401) headers['WWW-Authenticate'] = 'Bearer realm="ide-orchestrator"';
        if (!exchange.send({ status, headers, body: JSON.stringify(body), close: true })) return;
        count(status);
        const fields = { request_id: requestId, path: head.path, status };
        if (status >= 500) deps.log.error({ ...fields, err: toError(thrown) }, 'upgrade failed');
        else deps.log.info({ ...fields, code: body.code }, 'upgrade refused');
      },
    );
  };
  return (res, req, context) => {
    const exchange = openExchange(res, { withoutBody: false });
    guarded(
      exchange,
      () => begin(exchange, req, context),
      (error) => deps.log.error({ err: toError(error) }, 'an upgrade could not be read'),
    );
  };
}

async function judge(deps: UpgradeDeps, exchange: Exchange, head: RequestHead): Promise<Admission> {
  await refuseFault(head);
  if (deps.isStopping())
    throw new AppError('shutting_down', 'This replica is stopping.', { retryAfterSeconds: 1 });
  // Browsers always name their origin; what does not name one is no page.
  if (!deps.cors.allows(head.headers.origin)) {
    throw new AppError('origin_not_allowed', 'Pages of this origin may not call here.');
  }
  if (head.headers['sec-websocket-version'] !== '13') {
    throw new AppError('malformed_request', 'Only version 13 of the WebSocket protocol is spoken here.');
  }
  const query = new URLSearchParams(head.query);
  const position = positionOf(query);
  const threadId = (head.path.split('/').at(-1) ?? '').toLowerCase();
  const credential = credentialOf(head, query);
  const identity = await deps
    .gate(() => provenBy(deps, credential, threadId))
    .catch(async (error: unknown) => {
      if (error instanceof AppError && error.code === 'unauthenticated') {
        await deps.rateLimits.address(exchange.remoteAddress);
      }
      throw error;
    });
  await deps.rateLimits.user(identity.userId);
  const thread = await deps.gate(async () => {
    await deps.users.seen(deps.db, identity.userId);
    return uuid.test(threadId) ? findThreadFor(deps.db, { threadId, userId: identity.userId }) : null;
  });
  if (thread === null) throw new AppError('not_found', 'There is no such thread.');
  if (deps.isStopping())
    throw new AppError('shutting_down', 'This replica is stopping.', { retryAfterSeconds: 1 });
  return {
    viewerId: deps.ids(),
    threadId,
    proposalId: thread.proposalId,
    userId: identity.userId,
    access: thread.access,
    accessVersion: thread.accessVersion,
    expiresAt: identity.expiresAt,
    position,
    traceId: traceIdOf(contextFromTraceparent(head.headers.traceparent)) ?? deps.traceIds(),
    release: deps.rateLimits.takeSocket(identity.userId),
  };
}

function positionOf(query: URLSearchParams): ViewerPosition {
  const after = query.getAll('after');
  const epoch = query.getAll('epoch');
  if (after.length > 1 || epoch.length > 1 || (epoch[0]?.length ?? 0) > 255) throw badPosition();
  if (after[0] !== undefined && !/^\d{1,15}$/.test(after[0])) throw badPosition();
  return {
    ...(after[0] === undefined ? {} : { after: Number(after[0]) }),
    ...(epoch[0] === undefined ? {} : { epoch: epoch[0] }),
  };
}

function badPosition(): AppError {
  return new AppError(
    'invalid_position',
    '`after` must be a whole number of 0 or more, named once, and so `epoch`.',
  );
}
