import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { makeDataFolder, readJsonFile, writeJsonFile } from './data-files.js';
import { findFreePort } from './free-port.js';
import { endProcess, isRunning, type ProcessIdentity, processIdentityOf } from './process-identity.js';

export interface RuntimeProcess {
  /** Base URL, the same for as long as this handle lives. */
  url: string;
  /** Ends the runtime and waits until it is gone. */
  stop(): Promise<void>;
}

export interface RuntimeProcessOptions {
  databaseUrl: string;
  /** `scripted`, or `provider:name`. */
  model: string;
  dataDir: string;
  log: Logger;
  /** The whole environment besides what is built here: provider keys, LOG_LEVEL, PATH … (runtimeEnvironmentOf). */
  env: Readonly<Record<string, string>>;
  /** The script to run, instead of the runtime's. */
  entry?: string;
  /** How long the first start may take until /ready, ms. */
  readyWithinMs?: number;
  /** Waiting time before the first restart, ms; doubled up to 10 s while restarts fail. */
  restartBaseMs?: number;
}

interface RuntimeNote extends ProcessIdentity {
  port: number;
}

/** SIGTERM lets runs be put down where they can be resumed; a second run of the same work must be impossible. */
const stopSteps = [
  ['SIGTERM', 10_000],
  ['SIGKILL', 5_000],
] as const;
const restartMaxMs = 10_000;
/** A runtime that was ready for so long has earned a quick restart. */
const stableMs = 30_000;
const logFileBytes = 16 * 1024 * 1024;

const defaultEntry = fileURLToPath(new URL('../../../runtime/dist/src/main.js', import.meta.url));

const passedOn = ['PATH', 'HOME', 'LOG_LEVEL', 'NODE_ENV', 'NODE_EXTRA_CA_CERTS', 'NODE_V8_COVERAGE', 'TZ'];
const passedOnEndings = ['_API_KEY', '_BASE_URL', '_API_BASE'];
const passedOnBeginnings = ['OTEL_', 'RUNTIME_'];

/** What of an environment the runtime may know: the model's keys, logging and tracing, never database or JWT keys. */
export const runtimeEnvironmentOf = (
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> => {
  const chosen: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    const passes =
      passedOn.includes(name) ||
      passedOnEndings.some((ending) => name.endsWith(ending)) ||
      passedOnBeginnings.some((beginning) => name.startsWith(beginning));
    if (passes && value !== undefined && value !== '') chosen[name] = value;
  }
  return chosen;
};

/** The log goes to a file: a pipe would break under a runtime that outlives us, before it could be ended well. */
const openLog = (file: string): number => {
  if ((fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) > logFileBytes)
    fs.renameSync(file, `${file}.1`);
  return fs.openSync(file, 'a', 0o600);
};

const tailOf = (file: string, from: number): string =>
  fs.readFileSync(file).subarray(from).toString('utf8').trim().split('\n').slice(-12).join('\n');

const isReady = async (url: string): Promise<boolean> => {
  try {
    const response = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(2_000) });
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false;
  }
};

const waitUntilReady = async (url: string, child: ProcessIdentity, timeoutMs: number): Promise<boolean> => {
  const deadline = performance.now() + timeoutMs;
  while (isRunning(child) && performance.now() < deadline) {
    if (await isReady(url)) return true;
    await wait(50);
  }
  return false;
};

/**
 * Runs the runtime as a child in a process group of its own and keeps it running at one port of 127.0.0.1.
 * One that an earlier, killed orchestrator left behind is ended first; the caller holds the data lock.
 * Rejects with the end of its log when it does not become ready.
 */
export const startRuntimeProcess = async (options: RuntimeProcessOptions): Promise<RuntimeProcess> => {
  const { log } = options;
  const dataDir = makeDataFolder(options.dataDir);
  const noteFile = path.join(dataDir, 'runtime.json');
  const logFile = path.join(dataDir, 'runtime.log');

  const left = readJsonFile<RuntimeNote>(noteFile);
  if (left !== undefined && isRunning(left)) {
    log.warn({ runtime_pid: left.pid }, 'ending the runtime that an earlier start left behind');
    await endProcess(left, stopSteps, { group: true });
  }
  const port = await findFreePort(left?.port);
  const url = `http://127.0.0.1:${port}`;
  const environment = {
    ...options.env,
    RUNTIME_HOST: '127.0.0.1',
    RUNTIME_PORT: String(port),
    RUNTIME_DATABASE_URL: options.databaseUrl,
    MODEL: options.model,
  };

  const launch = async (): Promise<ProcessIdentity> => {
    const output = openLog(logFile);
    const child = spawn(process.execPath, ['--enable-source-maps', options.entry ?? defaultEntry], {
      cwd: dataDir,
      env: environment,
      detached: true,
      stdio: ['ignore', output, output],
    });
    fs.closeSync(output);
    child.on('error', (error) => log.error({ err: error }, 'the runtime could not be spawned'));
    child.unref();
    const identity = child.pid === undefined ? undefined : processIdentityOf(child.pid);
    if (identity === undefined) throw new Error('The runtime could not be spawned');
    writeJsonFile(noteFile, { ...identity, port } satisfies RuntimeNote);
    return identity;
  };

  const logStart = fs.statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
  let child = await launch();
  if (!(await waitUntilReady(url, child, options.readyWithinMs ?? 60_000))) {
    await endProcess(child, stopSteps, { group: true });
    throw new Error(`The runtime did not become ready (${logFile}):\n${tailOf(logFile, logStart)}`);
  }
  log.info({ url, runtime_pid: child.pid, log: logFile }, 'the runtime is ready');

  const ended = new AbortController();
  const baseMs = options.restartBaseMs ?? 200;
  const watch = async (): Promise<void> => {
    let delayMs = baseMs;
    let since = performance.now();
    while (!ended.signal.aborted) {
      await wait(100, undefined, { signal: ended.signal, ref: false }).catch(() => undefined);
      if (ended.signal.aborted || isRunning(child)) continue;
      if (performance.now() - since > stableMs) delayMs = baseMs;
      log.warn({ delay_ms: delayMs }, 'the runtime died, starting it again');
      await wait(delayMs, undefined, { signal: ended.signal }).catch(() => undefined);
      if (ended.signal.aborted) break;
      delayMs = Math.min(delayMs * 2, restartMaxMs);
      since = performance.now();
      try {
        child = await launch();
      } catch (error) {
        log.error({ err: error }, 'the runtime does not start');
      }
    }
  };
  const watching = watch();

  return {
    url,
    stop: async () => {
      ended.abort();
      await watching;
      await endProcess(child, stopSteps, { group: true });
      fs.rmSync(noteFile, { force: true });
    },
  };
};
