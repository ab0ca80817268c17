import './agent/library-settings.js';
import { performance } from 'node:perf_hooks';
import closeWithGrace from 'close-with-grace';
import { ConfigError, processConfig } from './config.js';
import { createRuntime } from './create-runtime.js';
import { modelSettingOf } from './models/model-setting.js';
import { createLogger, writtenLines } from './telemetry/logger.js';
import { createTracing } from './telemetry/tracing.js';

/** Beside the runs' table, in a schema of its own: the library's tables are the library's affair. */
const checkpointSchema = 'checkpoints';

/** A busy machine's start is not held up for longer, in milliseconds. */
const longestWarmUp = 1_000;

async function loadAgents() {
  const [{ setupCheckpoints }, { createDeepAgentRunner }, { warmUpAgents }] = await Promise.all([
    import('./agent/checkpoints.js'),
    import('./agent/deep-agent-runner.js'),
    import('./agent/warm-up.js'),
  ]);
  return { setupCheckpoints, createDeepAgentRunner, warm: warmUpAgents(longestWarmUp) };
}

async function main(): Promise<void> {
  const config = processConfig();
  const model = modelSettingOf(config.model, { chunkDelayMs: config.scriptedChunkMs });
  // They take most of a start: they load while the database is prepared, and not for a configuration
  // that is refused.
  const loading = loadAgents();
  const logger = createLogger(config.logLevel);
  const tracing = await createTracing(config.otlpEndpoint);
  const runtime = await createRuntime(config, {
    logger,
    tracer: tracing.tracer,
    now: () => performance.now(),
    createRunner: async ({ pool, logger }) => {
      const { setupCheckpoints, createDeepAgentRunner, warm } = await loading;
      await Promise.all([setupCheckpoints(pool, checkpointSchema), warm]);
      return createDeepAgentRunner({ pool, schema: checkpointSchema, model, logger });
    },
  });
  // Twice the grace: runs that do not reach the end of their step are left after the first.
  closeWithGrace({ delay: config.stopGraceMs * 2 + 5_000, logger }, async ({ err }) => {
    if (err !== undefined) logger.fatal({ err }, 'stopping after an error');
    await runtime.stop();
    await tracing.stop();
    await writtenLines(logger);
  });
}

main().catch((thrown: unknown) => {
  // The configuration may be what is wrong: there is no logger to count on.
  process.stderr.write(`${thrown instanceof ConfigError ? thrown.message : String(thrown)}\n`);
  process.exit(1);
});
