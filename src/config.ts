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
    /** Bytes that may wait for one viewer before it is closed with 4408. */
    budgetBytes: number;
    /** Messages and pings a second that a viewer may send before 4429. */
    messagesPerSecond: number;
    ticketTtlMs: number;
  };
  auth: {
    /** Exactly one is set; the development identity fills publicKeyPem when none is. */
    publicKeyPem: string | null;
    jwksUrl: string | null;
    secret: string | null;
    issuer: string | null;
    audience: string | null;
  };
  database: { url: string | null; poolSize: number; queryDeadlineMs: number };
  runtime: {
    url: string | null;
    invokeDeadlineMs: number;
    callDeadlineMs: number;
    handshakeTimeoutMs: number;
    pingIntervalMs: number;
    frameBytes: number;
  };
  runs: {
    /** How long POST …/refinements waits for invoke. */
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
  retention: { transcriptMs: number; idempotencyMs: number; undecidedMs: number };
}
