import { test } from 'tap';
import { ConfigError, readConfig } from '../../src/config.js';

const databaseUrl = 'postgres://user:secret@127.0.0.1/deepagents_runtime';

test('A database address is all that must be given', (t) => {
  const config = readConfig({ RUNTIME_DATABASE_URL: databaseUrl, LOG_LEVEL: '' });
  t.match(config, {
    host: '127.0.0.1',
    port: 8081,
    databaseUrl,
    model: 'scripted',
    scriptedChunkMs: 15,
    logLevel: 'info',
    otlpEndpoint: null,
    runConcurrency: 60,
    startConcurrency: 10,
  });
  t.ok(Object.isFrozen(config));
  t.end();
});

test('All faults are told together, without the values', (t) => {
  t.plan(8);
  try {
    readConfig({
      RUNTIME_DATABASE_URL: 'mysql://user:secret@host/db',
      RUNTIME_PORT: '70000',
      LOG_LEVEL: 'loud',
      RUN_IDLE_MS: '1.5',
      RUN_CONCURRENCY: '0',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'nowhere',
    });
  } catch (thrown) {
    t.ok(thrown instanceof ConfigError);
    const { message } = thrown as ConfigError;
    for (const name of [
      'RUNTIME_DATABASE_URL',
      'RUNTIME_PORT',
      'LOG_LEVEL',
      'RUN_IDLE_MS',
      'RUN_CONCURRENCY',
      'OTEL_EXPORTER_OTLP_ENDPOINT',
    ])
      t.match(message, name);
    t.notMatch(message, /secret/);
  }
});
