import type { Logger } from 'pino';
import type { Config } from '../config.js';
import { ensureDatabase } from '../db/ensure-database.js';
import { takeDataLock } from './data-lock.js';
import { createDevIdentity, type DevIdentity } from './dev-identity.js';
import { startEmbeddedPostgres } from './postgres.js';
import { startRuntimeProcess } from './runtime-process.js';

const orchestratorDatabase = 'ide_orchestrator';
const runtimeDatabase = 'deepagents_runtime';

export interface Embedded {
  databaseUrl: string;
  runtimeUrl: string;
  /** Set where the configuration names no key to check tokens with. */
  identity?: DevIdentity;
  /** Names the address that a second start is told, once the server listens. */
  setUrl(url: string): void;
  /** Ends what was started here: the runtime, then PostgreSQL, then the lock. Call it last. */
  stop(): Promise<void>;
}

export interface EmbeddedDeps {
  config: {
    production: boolean;
    database: Pick<Config['database'], 'url'>;
    runtime: Pick<Config['runtime'], 'url'>;
    auth: Pick<Config['auth'], 'publicKeyPem' | 'jwksUrl' | 'secret'>;
  };
  /** Folder of everything that is kept here, `.data` of the clone. */
  dataDir: string;
  /** The address that a second start is told. */
  url: string;
  model: string;
  /** What the runtime may know of our environment (runtimeEnvironmentOf). */
  runtimeEnvironment: Readonly<Record<string, string>>;
  log: Logger;
  /** Aborted when the process is told to stop while it still starts; what was started is then ended. */
  signal?: AbortSignal;
  /** The runtime's script, another one in tests. */
  runtimeEntry?: string;
}

/** The same server, credentials and options with another database. */
const withDatabase = (url: string, database: string): string => {
  const other = new URL(url);
  other.pathname = `/${encodeURIComponent(database)}`;
  return other.href;
};

/**
 * Starts what the configuration does not name: PostgreSQL, the runtime, a development key. Nothing in production,
 * where the configuration is complete.
 *
 * Throws AlreadyRunningError where another process has this clone's data; then nothing was changed.
 */
export const startEmbedded = async (deps: EmbeddedDeps): Promise<Embedded> => {
  const { config, dataDir, log, signal } = deps;
  const undo: (() => Promise<void> | void)[] = [];
  const stop = async (): Promise<void> => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  const needsFolder = config.database.url === null || config.runtime.url === null;

  try {
    const lock = needsFolder ? await takeDataLock({ dataDir, url: deps.url }) : undefined;
    if (lock !== undefined) undo.push(() => lock.release());
    signal?.throwIfAborted();

    let databaseUrl = config.database.url;
    if (databaseUrl === null) {
      const postgres = await startEmbeddedPostgres({
        dataDir,
        log,
        databases: [orchestratorDatabase, runtimeDatabase],
      });
      undo.push(() => postgres.stop());
      databaseUrl = postgres.url(orchestratorDatabase);
    } else if (!config.production) {
      await ensureDatabase(databaseUrl);
    }
    signal?.throwIfAborted();

    let runtimeUrl = config.runtime.url;
    if (runtimeUrl === null) {
      const runtimeDatabaseUrl = withDatabase(databaseUrl, runtimeDatabase);
      await ensureDatabase(runtimeDatabaseUrl);
      const runtime = await startRuntimeProcess({
        databaseUrl: runtimeDatabaseUrl,
        model: deps.model,
        dataDir,
        log,
        env: deps.runtimeEnvironment,
        ...(deps.runtimeEntry === undefined ? {} : { entry: deps.runtimeEntry }),
      });
      undo.push(() => runtime.stop());
      runtimeUrl = runtime.url;
    }
    signal?.throwIfAborted();

    const { publicKeyPem, jwksUrl, secret } = config.auth;
    const needsIdentity = !config.production && publicKeyPem === null && jwksUrl === null && secret === null;
    return {
      databaseUrl,
      runtimeUrl,
      ...(needsIdentity ? { identity: createDevIdentity({ dataDir }) } : {}),
      setUrl: (url) => lock?.setUrl(url),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
};
