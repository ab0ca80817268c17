import { createPublicKey } from 'node:crypto';
import { type NumberVariable, numberVariables } from './config-variables.js';

/** The whole configuration, frozen. Only this file reads the environment. Times are milliseconds, sizes bytes. */
export interface Config {
  production: boolean;
  logLevel: string;
  otlpEndpoint: string | null;
  http: {
    port: number;
    host: string;
    metricsPort: number;
    corsAllowedOrigins: readonly string[];
    bodyBytes: number;
    headerBytes: number;
    /** REST calls a minute and user. */
    requestsPerMinute: number;
    /** Calls a minute and address before a token was seen (uses the socket's address). */
    unauthenticatedPerMinute: number;
    /** Refinements started a minute and user. */
    refinementsPerMinute: number;
    /** Open viewer sockets per user. */
    socketsPerUser: number;
    shutdownGraceMs: number;
  };
  viewers: {
    /** Bytes that may wait for one viewer. */
    budgetBytes: number;
    /** A viewer that takes nothing for this long is closed with 4408. */
    stuckMs: number;
    /** Messages and pings a second that a viewer may send before 4429. */
    messagesPerSecond: number;
    ticketTtlMs: number;
    /** Viewers are closed with 1013 when who may look could not be read for this long. */
    accessUnknownMs: number;
  };
  auth: {
    /** Exactly one is set; the development identity fills publicKeyPem when none is. */
    publicKeyPem: string | null;
    jwksUrl: string | null;
    secret: string | null;
    issuer: string | null;
    audience: string | null;
  };
  database: {
    url: string | null;
    poolSize: number;
    queryDeadlineMs: number;
    /** All ends that wait for their commit together; beyond, a thread reads its own again from the runtime. */
    waitingCommitBytes: number;
  };
  runtime: {
    url: string | null;
    invokeDeadlineMs: number;
    callDeadlineMs: number;
    handshakeTimeoutMs: number;
    pingIntervalMs: number;
    frameBytes: number;
    /** Model of the embedded runtime; another runtime has its own. */
    model: string;
  };
  runs: {
    /** How long POST …/refinements waits for invoke, and for the commit of its refusal. */
    startWaitMs: number;
    maxAttempts: number;
    retryBaseMs: number;
    retryMaxMs: number;
    reconnectBaseMs: number;
    reconnectMaxMs: number;
    /** No frame for this long after the run's first event = stalled. */
    idleMs: number;
    /** The whole refinement, all attempts. */
    totalMs: number;
    cancelGraceMs: number;
    /** A thread without work and viewers is forgotten after this long. */
    idleActorMs: number;
    fileBytes: number;
    files: number;
  };
  window: { processBytes: number; threadBytes: number };
  retention: { transcriptMs: number; transcriptBytes: number; idempotencyMs: number; undecidedMs: number };
}

/** One fault of the environment. `problem` never repeats a value that may be a secret. */
export interface ConfigFault {
  readonly variable: string;
  readonly problem: string;
}

/** All faults of the environment together, so that a deployment is corrected once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly faults: readonly ConfigFault[];

  constructor(faults: readonly ConfigFault[]) {
    super(
      `Invalid configuration:\n${faults.map(({ variable, problem }) => `  ${variable} ${problem}`).join('\n')}`,
    );
    this.faults = faults;
  }
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/**
 * Reads, checks and freezes the configuration (protocol.md §5; names in `config-variables.ts`). An empty variable counts as unset.
 * @throws ConfigError with every fault that was found
 */
export function loadConfig(env: NodeJS.ProcessEnv): Config {
  const faults: ConfigFault[] = [];
  const fault = (variable: string, problem: string): void => void faults.push({ variable, problem });
  const text = (name: string): string | null => env[name]?.trim() || null;
  const production = text('NODE_ENV') === 'production';
  const required = (name: string): string | null => {
    const value = text(name);
    if (value === null && production) fault(name, 'is required in production');
    return value;
  };
  const url = (name: string, value: string | null, protocols: readonly string[]): string | null => {
    const parsed = value === null ? null : URL.canParse(value) ? new URL(value) : undefined;
    if (parsed === null) return null;
    if (parsed !== undefined && protocols.includes(parsed.protocol)) return value;
    fault(name, `must be a URL that begins with ${protocols.map((each) => `${each}//`).join(' or ')}`);
    return null;
  };
  const number = (variable: NumberVariable): number => {
    const value = text(variable.name);
    if (value === null) return variable.fallback;
    const parsed = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (parsed >= variable.min && parsed <= variable.max) return parsed;
    fault(variable.name, `must be a whole number from ${variable.min} to ${variable.max} (${variable.unit})`);
    return variable.fallback;
  };
  const section = <Key extends string>(table: Readonly<Record<Key, NumberVariable>>): Record<Key, number> => {
    const entries = Object.entries<NumberVariable>(table).map(([key, each]) => [key, number(each)]);
    return Object.fromEntries(entries) as Record<Key, number>;
  };

  const level = text('LOG_LEVEL') ?? 'info';
  if (!logLevels.includes(level)) fault('LOG_LEVEL', `must be one of ${logLevels.join(', ')}`);
  const config: Config = {
    production,
    logLevel: level,
    otlpEndpoint: url('OTEL_EXPORTER_OTLP_ENDPOINT', text('OTEL_EXPORTER_OTLP_ENDPOINT'), [
      'http:',
      'https:',
    ]),
    http: {
      ...section(numberVariables.http),
      host: text('HOST') ?? (production ? '0.0.0.0' : '127.0.0.1'),
      corsAllowedOrigins: originsOf(required('CORS_ALLOWED_ORIGINS'), fault),
    },
    viewers: section(numberVariables.viewers),
    auth: {
      ...keyOf(text, url, production, fault),
      issuer: required('JWT_ISSUER'),
      audience: required('JWT_AUDIENCE'),
    },
    database: { ...section(numberVariables.database), url: databaseUrlOf(text, url, production, fault) },
    runtime: {
      ...section(numberVariables.runtime),
      url: url('DEEPAGENTS_RUNTIME_URL', required('DEEPAGENTS_RUNTIME_URL'), ['http:', 'https:']),
      model: text('MODEL') ?? 'scripted',
    },
    runs: section(numberVariables.runs),
    window: section(numberVariables.window),
    retention: section(numberVariables.retention),
  };
  checkOrder(config, fault);
  if (faults.length > 0) throw new ConfigError(faults);
  return deepFreeze(config);
}

type Fault = (variable: string, problem: string) => void;
type Text = (name: string) => string | null;
type Url = (name: string, value: string | null, protocols: readonly string[]) => string | null;

function originsOf(list: string | null, fault: Fault): string[] {
  const origins = (list ?? '').split(',').map((each) => each.trim());
  return origins.filter((origin) => {
    if (origin === '') return false;
    const good =
      URL.canParse(origin) && /^https?:$/.test(new URL(origin).protocol) && new URL(origin).origin === origin;
    if (!good)
      fault(
        'CORS_ALLOWED_ORIGINS',
        `must list origins such as https://ide.example, not ${JSON.stringify(origin)}`,
      );
    return good;
  });
}

function keyOf(
  text: Text,
  url: Url,
  production: boolean,
  fault: Fault,
): Pick<Config['auth'], 'publicKeyPem' | 'jwksUrl' | 'secret'> {
  // A PEM in one line with \n in it is what many secret stores hand out.
  const publicKeyPem = text('JWT_PUBLIC_KEY')?.replaceAll('\\n', '\n').trim() ?? null;
  const jwksUrl = url('JWT_JWKS_URL', text('JWT_JWKS_URL'), ['http:', 'https:']);
  const secret = text('JWT_SECRET');
  const named = ['JWT_PUBLIC_KEY', 'JWT_JWKS_URL', 'JWT_SECRET'].filter((name) => text(name) !== null);
  if (named.length > 1) fault(named.join(', '), 'exclude each other: set exactly one');
  if (named.length === 0 && production)
    fault('JWT_PUBLIC_KEY', 'or JWT_JWKS_URL or JWT_SECRET is required in production');
  if (publicKeyPem !== null && !isPublicKey(publicKeyPem))
    fault('JWT_PUBLIC_KEY', 'must be a public key in PEM');
  if (secret !== null && Buffer.byteLength(secret) < 32) fault('JWT_SECRET', 'must have at least 32 bytes');
  return { publicKeyPem, jwksUrl, secret };
}

function isPublicKey(pem: string): boolean {
  try {
    return pem.includes('PUBLIC KEY') && createPublicKey(pem).type === 'public';
  } catch {
    return false;
  }
}

function databaseUrlOf(text: Text, url: Url, production: boolean, fault: Fault): string | null {
  const whole = text('DATABASE_URL');
  if (whole !== null) return url('DATABASE_URL', whole, ['postgres:', 'postgresql:']);
  const host = text('POSTGRES_HOST');
  if (host === null) {
    // Not POSTGRES_PORT: Kubernetes sets it by itself where a service is called `postgres`.
    const strays = ['POSTGRES_DB', 'POSTGRES_USER', 'POSTGRES_PASSWORD'].filter(
      (name) => text(name) !== null,
    );
    if (strays.length > 0) fault('POSTGRES_HOST', `is missing beside ${strays.join(', ')}`);
    else if (production) fault('DATABASE_URL', 'or POSTGRES_HOST is required in production');
    return null;
  }
  const port = text('POSTGRES_PORT') ?? '5432';
  const user = text('POSTGRES_USER');
  const password = text('POSTGRES_PASSWORD');
  if (!/^\d{1,5}$/.test(port)) fault('POSTGRES_PORT', 'must be a port');
  if (user === null) fault('POSTGRES_USER', 'is required with POSTGRES_HOST');
  const credentials = `${encodeURIComponent(user ?? '')}${password === null ? '' : `:${encodeURIComponent(password)}`}`;
  const database = encodeURIComponent(text('POSTGRES_DB') ?? 'ide_orchestrator');
  return url('POSTGRES_HOST', `postgres://${credentials}@${host}:${port}/${database}`, ['postgres:']);
}

/** Pairs of numbers of which the first may not exceed the second. */
function checkOrder({ runs, window, http }: Config, fault: Fault): void {
  const { runs: r, window: w } = numberVariables;
  const pairs: readonly [number, NumberVariable, number, NumberVariable][] = [
    [runs.retryBaseMs, r.retryBaseMs, runs.retryMaxMs, r.retryMaxMs],
    [runs.reconnectBaseMs, r.reconnectBaseMs, runs.reconnectMaxMs, r.reconnectMaxMs],
    [window.threadBytes, w.threadBytes, window.processBytes, w.processBytes],
  ];
  for (const [low, { name }, high, { name: other }] of pairs) {
    if (low > high) fault(name, `must not be greater than ${other}`);
  }
  if (http.port !== 0 && http.port === http.metricsPort) fault('METRICS_PORT', 'must differ from PORT');
}

function deepFreeze<T extends object>(value: T): T {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) deepFreeze(member);
  }
  return Object.freeze(value);
}
