import { limits } from '@ide-orchestrator/protocol';
import type { Config } from './config.js';

type Unit = 'ms' | 'bytes' | 'count' | 'port';

/** One number of the configuration: the variable that sets it, and what it means. */
export interface NumberVariable {
  readonly name: string;
  readonly fallback: number;
  readonly unit: Unit;
  readonly meaning: string;
  readonly min: number;
  readonly max: number;
}

type NumbersOf<Section> = {
  readonly [Key in keyof Section as Section[Key] extends number ? Key : never]: NumberVariable;
};
type NumberedSection = 'http' | 'viewers' | 'database' | 'runtime' | 'runs' | 'window' | 'retention';
/** The compiler refuses the table while a number of `Config` has no variable. */
export type NumberTable = { readonly [Key in NumberedSection]: NumbersOf<Config[Key]> };

const KIB = 1024;
const MIB = 1024 * KIB;
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const ms = (name: string, fallback: number, meaning: string, min = 1): NumberVariable => ({
  name,
  fallback,
  unit: 'ms',
  meaning,
  min,
  // The longest delay of a Node timer: beyond it a timer fires at once.
  max: 2 ** 31 - 1,
});
const bytes = (name: string, fallback: number, meaning: string, min = KIB): NumberVariable => ({
  name,
  fallback,
  unit: 'bytes',
  meaning,
  min,
  max: 64 * 1024 * MIB,
});
const count = (name: string, fallback: number, meaning: string, min = 1): NumberVariable => ({
  name,
  fallback,
  unit: 'count',
  meaning,
  min,
  max: 10_000_000,
});
const port = (name: string, fallback: number, meaning: string): NumberVariable => ({
  name,
  fallback,
  unit: 'port',
  meaning,
  min: 0,
  max: 65_535,
});

export const numberVariables: NumberTable = {
  http: {
    port: port('PORT', 8080, 'Port of the API and of the viewers’ sockets; 0 = any free one'),
    metricsPort: port('METRICS_PORT', 9464, 'Port of GET /metrics; 0 = any free one'),
    bodyBytes: bytes('HTTP_BODY_BYTES', limits.bodyBytes, 'Largest request body'),
    headerBytes: bytes('HTTP_HEADER_BYTES', 16 * KIB, 'Largest request head: request line and headers'),
    requestsPerMinute: count('HTTP_REQUESTS_PER_MINUTE', 600, 'API calls a minute and user'),
    unauthenticatedPerMinute: count(
      'HTTP_UNAUTHENTICATED_PER_MINUTE',
      120,
      'Refused or anonymous calls a minute and address',
    ),
    refinementsPerMinute: count('REFINEMENTS_PER_MINUTE', 30, 'Refinements started a minute and user'),
    socketsPerUser: count('SOCKETS_PER_USER', 50, 'Open viewer sockets per user'),
    shutdownGraceMs: ms('SHUTDOWN_GRACE_MS', 10 * SECOND, 'Time for an orderly stop before the process ends'),
  },
  viewers: {
    budgetBytes: bytes(
      'VIEWER_BUDGET_BYTES',
      MIB,
      'Bytes that may wait for one viewer; above a quarter of them it is served at its own pace',
    ),
    stuckMs: ms(
      'VIEWER_STUCK_MS',
      10 * SECOND,
      'A viewer that takes nothing for this long is closed with 4408',
    ),
    messagesPerSecond: count(
      'VIEWER_MESSAGES_PER_SECOND',
      20,
      'Messages and pings a second of one viewer before 4429',
    ),
    ticketTtlMs: ms('TICKET_TTL_MS', MINUTE, 'Life of a one-time stream ticket'),
    accessUnknownMs: ms(
      'ACCESS_UNKNOWN_MS',
      120 * SECOND,
      'Viewers are closed with 1013 when PostgreSQL did not tell for this long who may look',
    ),
  },
  database: {
    poolSize: count('DATABASE_POOL_SIZE', 10, 'Connections of the pool', 2),
    queryDeadlineMs: ms('DATABASE_QUERY_DEADLINE_MS', 10 * SECOND, 'Longest wait for one statement', 100),
    waitingCommitBytes: bytes(
      'WAITING_COMMIT_BYTES',
      64 * MIB,
      'What the ends of runs may hold while they wait for their commit, all threads',
    ),
  },
  runtime: {
    invokeDeadlineMs: ms(
      'RUNTIME_INVOKE_DEADLINE_MS',
      30 * SECOND,
      'Longest wait for the answer to one invoke',
    ),
    callDeadlineMs: ms('RUNTIME_CALL_DEADLINE_MS', 5 * SECOND, 'Longest wait for state, cancel and cleanup'),
    handshakeTimeoutMs: ms(
      'RUNTIME_HANDSHAKE_TIMEOUT_MS',
      5 * SECOND,
      'Longest wait for a connection to the runtime, or for its stream to open',
    ),
    pingIntervalMs: ms(
      'RUNTIME_PING_INTERVAL_MS',
      15 * SECOND,
      'Time between pings on a stream of the runtime',
    ),
    frameBytes: bytes('RUNTIME_FRAME_BYTES', limits.runtimeFrameBytes, 'Largest frame of the runtime'),
  },
  runs: {
    startWaitMs: ms(
      'RUN_START_WAIT_MS',
      5 * SECOND,
      'How long POST …/refinements waits for invoke, and for the commit of its refusal',
    ),
    maxAttempts: count('RUN_MAX_ATTEMPTS', limits.maxAttempts, 'Attempts of a run, the first one counted'),
    retryBaseMs: ms('RUN_RETRY_BASE_MS', SECOND, 'First delay before a failed run is tried again'),
    retryMaxMs: ms('RUN_RETRY_MAX_MS', 30 * SECOND, 'Longest delay before a failed run is tried again'),
    reconnectBaseMs: ms('RECONNECT_BASE_MS', 100, 'First delay before a lost stream is opened again'),
    reconnectMaxMs: ms('RECONNECT_MAX_MS', 5 * SECOND, 'Longest delay before a lost stream is opened again'),
    idleMs: ms('RUN_IDLE_MS', 120 * SECOND, 'No frame for this long after the first event = stalled'),
    totalMs: ms('RUN_TOTAL_MS', 30 * MINUTE, 'Longest refinement, all attempts counted'),
    cancelGraceMs: ms(
      'RUN_CANCEL_GRACE_MS',
      10 * SECOND,
      'A run that has not ended this long after a cancel is cut',
    ),
    idleActorMs: ms(
      'IDLE_ACTOR_MS',
      MINUTE,
      'A thread without work and viewers leaves the memory after this long',
    ),
    fileBytes: bytes('RUN_FILE_BYTES', limits.fileBytes, 'Largest file that a run may produce'),
    files: count('RUN_FILES', limits.files, 'Most files that a run may produce'),
  },
  window: {
    processBytes: bytes('WINDOW_PROCESS_BYTES', 256 * MIB, 'Frames kept for returning viewers, all threads'),
    threadBytes: bytes('WINDOW_THREAD_BYTES', 4 * MIB, 'Frames kept for returning viewers, one thread'),
  },
  retention: {
    transcriptMs: ms('TRANSCRIPT_RETENTION_MS', 7 * DAY, 'Life of a finished run’s frames'),
    transcriptBytes: bytes(
      'TRANSCRIPT_BYTES',
      64 * MIB,
      'Frames kept of one finished run, before compression',
    ),
    idempotencyMs: ms('IDEMPOTENCY_RETENTION_MS', DAY, 'Life of an Idempotency-Key'),
    undecidedMs: ms(
      'UNDECIDED_RETENTION_MS',
      DAY,
      'A completed proposal expires when undecided for this long',
    ),
  },
};

/** A variable that is no number. `required` = in production. */
interface TextVariable {
  readonly name: string;
  readonly fallback: string | null;
  readonly required: boolean;
  readonly meaning: string;
}

const text = (name: string, fallback: string | null, meaning: string, required = false): TextVariable => ({
  name,
  fallback,
  required,
  meaning,
});

const textVariables: readonly TextVariable[] = [
  text('NODE_ENV', null, '`production` makes the required variables required; anything else is development'),
  text('HOST', '127.0.0.1', 'Address to listen on; in production the default is 0.0.0.0'),
  text('LOG_LEVEL', 'info', 'trace, debug, info, warn, error, fatal or silent'),
  text(
    'DATABASE_URL',
    null,
    'postgres:// URL of the database ide_orchestrator; unset = embedded PostgreSQL',
    true,
  ),
  text('POSTGRES_HOST', null, 'Instead of DATABASE_URL: host'),
  text('POSTGRES_PORT', '5432', 'Instead of DATABASE_URL: port'),
  text('POSTGRES_DB', 'ide_orchestrator', 'Instead of DATABASE_URL: database'),
  text('POSTGRES_USER', null, 'Instead of DATABASE_URL: role'),
  text('POSTGRES_PASSWORD', null, 'Instead of DATABASE_URL: password'),
  text('DEEPAGENTS_RUNTIME_URL', null, 'http(s):// URL of the runtime; unset = embedded runtime', true),
  text('MODEL', 'scripted', 'Model of the embedded runtime: scripted, or provider:name'),
  text('JWT_PUBLIC_KEY', null, 'PEM of the key that signs tokens; one of the three keys', true),
  text('JWT_JWKS_URL', null, 'URL of a key set; one of the three keys', true),
  text('JWT_SECRET', null, 'HS256 secret of at least 32 bytes; one of the three keys', true),
  text('JWT_ISSUER', null, 'Demanded `iss` of tokens', true),
  text('JWT_AUDIENCE', null, 'Demanded `aud` of tokens', true),
  text('CORS_ALLOWED_ORIGINS', null, 'Origins of front ends, separated by commas', true),
  text(
    'OTEL_EXPORTER_OTLP_ENDPOINT',
    null,
    'Base URL of an OTLP/HTTP collector; unset = spans are not exported',
  ),
];

/** Every variable that the orchestrator reads, for the documentation and its test. */
export const configVariables: readonly {
  name: string;
  fallback: string | null;
  unit: string;
  meaning: string;
}[] = [
  ...textVariables.map(({ name, fallback, meaning }) => ({ name, fallback, unit: 'text', meaning })),
  ...Object.values(numberVariables)
    .flatMap((section) => Object.values(section) as NumberVariable[])
    .map(({ name, fallback, unit, meaning }) => ({ name, fallback: String(fallback), unit, meaning })),
];
