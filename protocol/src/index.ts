/** The contract in one place. Field names are snake_case on every wire; times are RFC 3339 in UTC. */
export * from './error-catalogue.js';
export * from './frames.js';
export * from './limits.js';
export * from './rest-api.js';
export * from './runtime-api.js';
export * from './text.js';
