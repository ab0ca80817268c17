/** What the process is told from outside. Times are milliseconds, sizes bytes. */
export interface RuntimeConfig {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly databaseUrl: string;
  /** Connections of each of the two pools: the runs' rows, and the agents' checkpoints. */
  readonly databasePoolSize: number;
  /** `scripted`, or `provider:name`. */
  readonly model: string;
  /** Pause of the scripted model before each chunk. */
  readonly scriptedChunkMs: number;
  readonly logLevel: string;
  readonly otlpEndpoint: string | null;
  /** From the first start of a run to its end, over restarts. */
  readonly runDeadlineMs: number;
  /** A run that says nothing for so long is `stalled`. */
  readonly runIdleMs: number;
  readonly runConcurrency: number;
  /** Runs that have started and not said anything yet: building agents is what blocks the loop. */
  readonly startConcurrency: number;
  /** Jobs that may wait for a start; beyond, invoke answers 429. */
  readonly queueLimit: number;
  /** All event logs of the process together. */
  readonly eventLogBytes: number;
  /** A stream's reader that takes nothing for so long is closed; it may come back with its position. */
  readonly readerStallMs: number;
  /** How long a clean-up waits for an aborted run to stop before its caller is told to come back. */
  readonly abortGraceMs: number;
  /** From SIGTERM until runs that have not reached a step's end are left where they are. */
  readonly stopGraceMs: number;
}

/** Every fault of a configuration, said at once. */
export class ConfigError extends Error {
  constructor(readonly faults: readonly string[]) {
    super(`The configuration has faults:\n${faults.map((fault) => `  ${fault}`).join('\n')}`);
    this.name = 'ConfigError';
  }
}

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

/**
 * Reads the configuration from an environment; an empty variable counts as absent.
 * @throws {ConfigError} naming all faults together.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): RuntimeConfig {
  const faults: string[] = [];
  const text = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const whole = (name: string, fallback: number, least = 1, most = Number.MAX_SAFE_INTEGER): number => {
    const given = text(name);
    if (given === undefined) return fallback;
    const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
    if (value >= least && value <= most) return value;
    faults.push(`${name} must be a whole number from ${least} to ${most}`);
    return fallback;
  };
  const url = (name: string, schemes: readonly string[]): string | undefined => {
    const given = text(name);
    if (given === undefined || (URL.canParse(given) && schemes.includes(new URL(given).protocol)))
      return given;
    // The value is not repeated: a database URL holds a password.
    faults.push(
      `${name} must be a URL beginning with ${schemes.map((scheme) => `${scheme}//`).join(' or ')}`,
    );
    return given;
  };

  const databaseUrl = url('RUNTIME_DATABASE_URL', ['postgres:', 'postgresql:']);
  if (databaseUrl === undefined) faults.push('RUNTIME_DATABASE_URL is required');
  const logLevel = text('LOG_LEVEL') ?? 'info';
  if (!logLevels.includes(logLevel)) faults.push(`LOG_LEVEL must be one of ${logLevels.join(', ')}`);

  const config: RuntimeConfig = {
    host: text('RUNTIME_HOST') ?? '127.0.0.1',
    port: whole('RUNTIME_PORT', 8081, 0, 65_535),
    databaseUrl: databaseUrl ?? '',
    databasePoolSize: whole('DATABASE_POOL_SIZE', 10, 1, 1000),
    model: text('MODEL') ?? 'scripted',
    scriptedChunkMs: whole('SCRIPTED_CHUNK_MS', 15, 0, 60_000),
    logLevel,
    otlpEndpoint: url('OTEL_EXPORTER_OTLP_ENDPOINT', ['http:', 'https:']) ?? null,
    runDeadlineMs: whole('RUN_DEADLINE_MS', 30 * 60_000),
    runIdleMs: whole('RUN_IDLE_MS', 5 * 60_000),
    runConcurrency: whole('RUN_CONCURRENCY', 60),
    startConcurrency: whole('START_CONCURRENCY', 10),
    queueLimit: whole('QUEUE_LIMIT', 1000, 0),
    eventLogBytes: whole('EVENT_LOG_BYTES', 256 * 1024 * 1024),
    readerStallMs: whole('READER_STALL_MS', 30_000),
    abortGraceMs: whole('ABORT_GRACE_MS', 10_000),
    stopGraceMs: whole('STOP_GRACE_MS', 5_000, 0),
  };
  if (faults.length > 0) throw new ConfigError(faults);
  return Object.freeze(config);
}

/** The configuration of this process: the only place that reads its environment. */
export function processConfig(): RuntimeConfig {
  return readConfig(process.env);
}
