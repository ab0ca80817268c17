/**
 * Imported before anything else by main: the agent packages read these when they are loaded.
 *
 * An inherited LANGSMITH_TRACING makes every run call out to a foreign service, and with background
 * callbacks the stream loses tokens of a model that sends without delay.
 */
const { env } = process;

for (const name of ['LANGSMITH_TRACING', 'LANGSMITH_TRACING_V2', 'LANGCHAIN_TRACING', 'LANGCHAIN_TRACING_V2'])
  env[name] = 'false';
env.LANGCHAIN_CALLBACKS_BACKGROUND = 'false';

export const safeEnvironment = true;
