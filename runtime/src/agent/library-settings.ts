/**
 * Must be the first import of every file that loads the agent packages: they read these variables when
 * they load. Background callbacks lose token events when several runs stream at once, and an inherited
 * tracing switch would make every run call out.
 */
process.env.LANGCHAIN_CALLBACKS_BACKGROUND = 'false';
process.env.LANGSMITH_TRACING = 'false';
process.env.LANGSMITH_TRACING_V2 = 'false';
process.env.LANGCHAIN_TRACING_V2 = 'false';

// A module, so that importing it first is what applies the settings.
export {};
