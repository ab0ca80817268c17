import { generateKeyPairSync } from 'node:crypto';
import { test } from 'tap';
import { ConfigError, loadConfig } from '../src/config.js';
import { configVariables, numberVariables } from '../src/config-variables.js';

const { publicKey, privateKey } = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});

const production = {
  NODE_ENV: 'production',
  DATABASE_URL: 'postgres://ide:pw@db/ide_orchestrator',
  DEEPAGENTS_RUNTIME_URL: 'http://runtime:8081',
  JWT_PUBLIC_KEY: publicKey,
  JWT_ISSUER: 'https://id.example',
  JWT_AUDIENCE: 'ide',
  CORS_ALLOWED_ORIGINS: 'https://ide.example, https://other.example:8443',
};

function faultsOf(env: NodeJS.ProcessEnv): string[] {
  try {
    loadConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ variable }) => variable);
    throw error;
  }
  return [];
}

test('an empty environment is a whole development configuration', async (t) => {
  const config = loadConfig({});
  t.match(config, {
    production: false,
    logLevel: 'info',
    otlpEndpoint: null,
    http: { port: 8080, host: '127.0.0.1', metricsPort: 9464, corsAllowedOrigins: [], bodyBytes: 8_388_608 },
    auth: { publicKeyPem: null, jwksUrl: null, secret: null, issuer: null, audience: null },
    database: { url: null, poolSize: 10 },
    runtime: { url: null, invokeDeadlineMs: 30_000, callDeadlineMs: 5_000, frameBytes: 16_777_216 },
    runs: {
      maxAttempts: 4,
      idleMs: 120_000,
      totalMs: 1_800_000,
      reconnectBaseMs: 100,
      reconnectMaxMs: 5_000,
    },
    viewers: { budgetBytes: 1_048_576, ticketTtlMs: 60_000 },
    window: { processBytes: 268_435_456, threadBytes: 4_194_304 },
    retention: { transcriptMs: 604_800_000, idempotencyMs: 86_400_000, undecidedMs: 86_400_000 },
  });
});

test('the configuration cannot be changed, at any depth', async (t) => {
  const config = loadConfig(production);
  t.throws(() => {
    config.http.port = 1;
  }, TypeError);
  t.throws(() => {
    (config.http.corsAllowedOrigins as string[]).push('https://evil.example');
  }, TypeError);
});

test('a whole production environment is taken, and listens on all addresses', async (t) => {
  const config = loadConfig(production);
  t.equal(config.production, true);
  t.equal(config.http.host, '0.0.0.0');
  t.same(config.http.corsAllowedOrigins, ['https://ide.example', 'https://other.example:8443']);
  t.equal(config.auth.publicKeyPem?.trim(), publicKey.trim());
  t.equal(loadConfig({ ...production, HOST: '10.0.0.1' }).http.host, '10.0.0.1');
});

test('in production everything that is missing is reported at once', async (t) => {
  t.same(faultsOf({ NODE_ENV: 'production', PORT: 'http' }).sort(), [
    'CORS_ALLOWED_ORIGINS',
    'DATABASE_URL',
    'DEEPAGENTS_RUNTIME_URL',
    'JWT_AUDIENCE',
    'JWT_ISSUER',
    'JWT_PUBLIC_KEY',
    'PORT',
  ]);
  t.throws(() => loadConfig({ NODE_ENV: 'production' }), { message: /JWT_ISSUER.*\n.*JWT_AUDIENCE/ });
  t.same(faultsOf({ ...production, JWT_ISSUER: ' ', JWT_AUDIENCE: '' }), ['JWT_ISSUER', 'JWT_AUDIENCE']);
});

test('exactly one kind of key is taken, and it has to be good', async (t) => {
  const { JWT_PUBLIC_KEY, ...keyless } = production;
  const secret = 's'.repeat(32);
  t.equal(loadConfig({ ...keyless, JWT_SECRET: secret }).auth.secret, secret);
  t.equal(loadConfig({ ...keyless, JWT_JWKS_URL: 'https://id.example/jwks' }).auth.secret, null);
  t.equal(
    loadConfig({ JWT_PUBLIC_KEY: publicKey.replaceAll('\n', '\\n') }).auth.publicKeyPem,
    publicKey.trim(),
  );
  t.same(faultsOf({ JWT_PUBLIC_KEY, JWT_SECRET: secret }), ['JWT_PUBLIC_KEY, JWT_SECRET']);
  t.same(faultsOf({ JWT_SECRET: 'é'.repeat(15) }), ['JWT_SECRET'], '30 bytes');
  t.same(faultsOf({ JWT_PUBLIC_KEY: 'no key' }), ['JWT_PUBLIC_KEY']);
  t.same(faultsOf({ JWT_PUBLIC_KEY: '-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----' }), [
    'JWT_PUBLIC_KEY',
  ]);
  t.same(faultsOf({ JWT_PUBLIC_KEY: privateKey }), ['JWT_PUBLIC_KEY'], 'a private key has no place here');
  t.same(faultsOf({ JWT_JWKS_URL: 'ftp://id.example' }), ['JWT_JWKS_URL']);
});

test('no fault repeats a secret', async (t) => {
  const env = { JWT_SECRET: 'hunter2', DATABASE_URL: 'mysql://u:hunter2@db/x', JWT_PUBLIC_KEY: 'hunter2' };
  t.throws(() => loadConfig(env), { name: 'ConfigError' });
  try {
    loadConfig(env);
  } catch (error) {
    t.notMatch(String(error), /hunter2/);
  }
});

test('the database may be given in parts', async (t) => {
  const { DATABASE_URL: _, ...others } = production;
  const parts = { POSTGRES_HOST: 'db', POSTGRES_USER: 'i@de', POSTGRES_PASSWORD: 'p/w:ü' };
  const { url } = loadConfig({ ...others, ...parts }).database;
  t.equal(url, 'postgres://i%40de:p%2Fw%3A%C3%BC@db:5432/ide_orchestrator');
  const more = { POSTGRES_HOST: 'db', POSTGRES_USER: 'u', POSTGRES_PORT: '6432', POSTGRES_DB: 'x' };
  t.equal(loadConfig(more).database.url, 'postgres://u@db:6432/x');
  t.equal(
    loadConfig({ ...production, ...parts }).database.url,
    production.DATABASE_URL,
    'the URL goes first',
  );
  t.same(faultsOf({ POSTGRES_HOST: 'db', POSTGRES_PORT: 'tcp://10.0.0.1:5432' }), [
    'POSTGRES_PORT',
    'POSTGRES_USER',
    'POSTGRES_HOST',
  ]);
  t.same(faultsOf({ POSTGRES_USER: 'u', POSTGRES_PASSWORD: 'p' }), ['POSTGRES_HOST']);
  t.same(
    faultsOf({ POSTGRES_PORT: 'tcp://10.0.0.1:5432' }),
    [],
    'Kubernetes sets it for a service of that name',
  );
});

test('origins, addresses and levels are checked', async (t) => {
  for (const origin of ['*', 'https://ide.example/', 'ide.example', 'ftp://ide.example', 'null']) {
    t.same(
      faultsOf({ CORS_ALLOWED_ORIGINS: `https://good.example,${origin}` }),
      ['CORS_ALLOWED_ORIGINS'],
      origin,
    );
  }
  t.same(faultsOf({ CORS_ALLOWED_ORIGINS: 'https://good.example,' }), []);
  t.same(
    faultsOf({
      LOG_LEVEL: 'loud',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'collector',
      DEEPAGENTS_RUNTIME_URL: 'ws://x',
    }),
    ['LOG_LEVEL', 'OTEL_EXPORTER_OTLP_ENDPOINT', 'DEEPAGENTS_RUNTIME_URL'],
  );
});

test('every number has a variable that sets it, with bounds', async (t) => {
  for (const [section, variables] of Object.entries(numberVariables)) {
    for (const [field, { name, fallback, min, max }] of Object.entries(
      variables as Record<string, Variable>,
    )) {
      const read = (value: string) =>
        (loadConfig({ [name]: value }) as unknown as Record<string, Record<string, number>>)[section]?.[
          field
        ];
      t.ok(min <= fallback && fallback <= max, `${name} has a default within its bounds`);
      // Not every number is good beside the defaults of others; the bounds are.
      t.equal(read(String(fallback)), fallback, name);
      for (const bad of [String(min - 1), String(max + 1), '1.5', '1e3', 'ten', '0x10']) {
        t.ok(faultsOf({ [name]: bad }).includes(name), `${name}=${bad}`);
      }
    }
  }
});

test('numbers that contradict each other are reported', async (t) => {
  t.same(
    faultsOf({
      RUN_RETRY_BASE_MS: '60000',
      RECONNECT_BASE_MS: '9000',
      WINDOW_THREAD_BYTES: '999999999',
      METRICS_PORT: '8080',
    }),
    ['RUN_RETRY_BASE_MS', 'RECONNECT_BASE_MS', 'WINDOW_THREAD_BYTES', 'METRICS_PORT'],
  );
  t.same(faultsOf({ PORT: '0', METRICS_PORT: '0' }), []);
});

test('each variable is listed once, with a meaning', async (t) => {
  const names = configVariables.map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
  for (const { name, meaning } of configVariables)
    t.ok(/^[A-Z][A-Z0-9_]+$/.test(name) && meaning.length > 0, name);
});

interface Variable {
  name: string;
  fallback: number;
  min: number;
  max: number;
}
