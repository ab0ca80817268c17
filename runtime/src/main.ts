import './safe-environment.js';
import { performance } from 'node:perf_hooks';
import closeWithGrace from 'close-with-grace';
import { ConfigError, processConfig } from './config.js';
import { createRuntime } from './create-runtime.js';
import { createLogger } from './telemetry/logger.js';
import { createTracing } from './telemetry/tracing.js';

async function main(): Promise<void> {
  const config = processConfig();
  const logger = createLogger(config.logLevel);
  const tracing = await createTracing(config.otlpEndpoint);
  const runtime = await createRuntime(config, {
    logger,
    tracer: tracing.tracer,
    now: () => performance.now(),
    createRunner: async () => {
      throw new Error('no runner is built in yet');
    },
  });
  // Twice the grace: runs that do not reach the end of their step are left after the first.
  closeWithGrace({ delay: config.stopGraceMs * 2 + 5_000, logger }, async ({ err }) => {
    if (err !== undefined) logger.fatal({ err }, 'stopping after an error');
    await runtime.stop();
    await tracing.stop();
  });
}

main().catch((thrown: unknown) => {
  // The configuration may be what is wrong: there is no logger to count on.
  process.stderr.write(`${thrown instanceof ConfigError ? thrown.message : String(thrown)}\n`);
  process.exit(1);
});
