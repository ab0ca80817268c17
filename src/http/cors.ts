/** Headers of every answer: nothing here is a page of a browser except `/docs`, which brings its own policy. */
const always: Record<string, string> = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cache-Control': 'no-store',
  Vary: 'Origin',
};

export interface Cors {
  /** True where a browser's page of this origin may call; a request without Origin does not come from a page. */
  allows(origin: string | undefined): boolean;
  /** Headers of an ordinary answer to this origin. */
  headersFor(origin: string | undefined): Record<string, string>;
  /** Headers of the answer to a preflight from a listed origin. */
  preflightHeaders(origin: string, methods: readonly string[]): Record<string, string>;
}

/** Security headers, and CORS for the listed origins only; nothing is ever reflected that is not listed. */
export function createCors(options: { allowedOrigins: readonly string[]; production: boolean }): Cors {
  const listed = new Set(options.allowedOrigins);
  const base = options.production
    ? { ...always, 'Strict-Transport-Security': 'max-age=31536000; includeSubDomains' }
    : always;
  const headersFor = (origin: string | undefined) =>
    origin !== undefined && listed.has(origin)
      ? {
          ...base,
          'Access-Control-Allow-Origin': origin,
          'Access-Control-Expose-Headers': 'X-Request-Id, Retry-After, Location, Allow',
        }
      : { ...base };
  return {
    allows: (origin) => origin === undefined || listed.has(origin),
    headersFor,
    preflightHeaders: (origin, methods) => ({
      ...headersFor(origin),
      'Access-Control-Allow-Methods': methods.join(', '),
      'Access-Control-Allow-Headers':
        'Authorization, Content-Type, Idempotency-Key, X-Request-Id, traceparent, tracestate',
      'Access-Control-Max-Age': '600',
    }),
  };
}
