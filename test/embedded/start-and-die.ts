/** Starts the embedded parts in the folder that it is given, says so, and is killed as by `kill -9`. */
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { startEmbedded } from '../../src/embedded/embedded.js';

const embedded = await startEmbedded({
  config: {
    production: false,
    database: { url: null },
    runtime: { url: null },
    auth: { publicKeyPem: null, jwksUrl: null, secret: null },
  },
  dataDir: process.argv[2] ?? '',
  url: 'http://127.0.0.1:8080',
  model: 'scripted',
  runtimeEnvironment: {},
  log: pino({ level: 'silent' }),
  runtimeEntry: fileURLToPath(new URL('./stand-in-runtime.js', import.meta.url)),
});
process.stdout.write(
  `${JSON.stringify({ databaseUrl: embedded.databaseUrl, runtimeUrl: embedded.runtimeUrl })}\n`,
);
if (process.argv[3] === 'stay') setInterval(() => undefined, 1_000);
else process.kill(process.pid, 'SIGKILL');
