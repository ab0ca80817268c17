import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { banner } from './banner.js';
import { type Config, ConfigError, loadConfig } from './config.js';
import { migrate } from './db/migrate.js';
import { AlreadyRunningError } from './embedded/data-lock.js';
import { startEmbedded } from './embedded/embedded.js';
import { runtimeEnvironmentOf } from './embedded/runtime-process.js';
import { removeServerNote, writeServerNote } from './embedded/server-note.js';
import { toError } from './errors.js';
import { createService } from './service.js';
import { createShutdown } from './shutdown.js';
import { createLogger } from './telemetry/logger.js';
import { createMetrics } from './telemetry/metrics.js';
import { createTracing } from './telemetry/tracing.js';

const dataDir = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../.data');
/** Of the token that `npm start` prints. */
const TOKEN_SECONDS = 24 * 60 * 60;

function readConfig(): Config {
  try {
    return loadConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}

const began = performance.now();
const loaded = readConfig();
const log = createLogger({ level: loaded.logLevel, production: loaded.production });
const metrics = createMetrics({ onError: (error) => log.warn({ err: error }, 'a metric could not be read') });
const tracing = createTracing({ serviceName: 'ide-orchestrator', otlpEndpoint: loaded.otlpEndpoint });
const shutdown = createShutdown({ graceMs: loaded.http.shutdownGraceMs + 15_000, log });
const starting = new AbortController();
shutdown.add('start', () => starting.abort(new Error('told to stop while it started')));

async function start(): Promise<void> {
  const url = `http://${loaded.http.host}:${loaded.http.port}`;
  const embedded = await startEmbedded({
    config: loaded,
    dataDir,
    url,
    model: loaded.runtime.model,
    runtimeEnvironment: runtimeEnvironmentOf(process.env),
    log,
    signal: starting.signal,
  });
  const { identity } = embedded;
  const config: Config = identity
    ? {
        ...loaded,
        auth: {
          ...loaded.auth,
          publicKeyPem: identity.publicKeyPem,
          issuer: identity.issuer,
          audience: identity.audience,
        },
      }
    : loaded;
  try {
    const applied = await migrate(embedded.databaseUrl);
    if (applied.length > 0) log.info({ migrations: applied }, 'migrated');
    const service = await createService({
      config,
      databaseUrl: embedded.databaseUrl,
      runtimeUrl: embedded.runtimeUrl,
      sole: loaded.database.url === null,
      log,
      metrics,
      tracer: tracing.tracer,
    });
    shutdown.add('service', service.stop);
    shutdown.add('note', () => removeServerNote(dataDir, process.pid));
    shutdown.add('embedded', embedded.stop);
    shutdown.add('tracing', tracing.stop);
    const address = `http://${config.http.host}:${service.port}`;
    embedded.setUrl(address);
    log.info({ port: service.port, ready_ms: Math.round(performance.now() - began) }, 'ready');
    if (identity === undefined) return;
    const token = await identity.token('developer', TOKEN_SECONDS);
    writeServerNote(dataDir, { url: address, token, pid: process.pid });
    process.stdout.write(banner({ address, token, metricsPort: service.metricsPort }));
  } catch (error) {
    await embedded.stop();
    throw error;
  }
}

start().catch((error: unknown) => {
  if (error instanceof AlreadyRunningError) process.stderr.write(`${error.message}\n`);
  else log.fatal({ err: toError(error) }, 'the start failed');
  process.exit(1);
});
