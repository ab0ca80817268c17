import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { takeDataLock } from '../../src/embedded/data-lock.js';
import { createDevIdentity, type DevIdentity } from '../../src/embedded/dev-identity.js';
import { findFreePort } from '../../src/embedded/free-port.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import type { Logger } from '../../src/telemetry/logger.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
/** Everything that a bench leaves behind: key, logs, profiles, k6. */
export const benchDir = path.join(root, '.bench');
const profileDir = path.join(benchDir, 'profiles');
const profileName = (name: string): string => `${name}-${process.pid}.cpuprofile`;
/** Makes a process write its CPU profile when it ends. */
export const profileFlags = (name: string): string[] => [
  '--cpu-prof',
  `--cpu-prof-dir=${profileDir}`,
  `--cpu-prof-name=${profileName(name)}`,
];
export const profileFile = (name: string): string => path.join(profileDir, profileName(name));
const frontEnd = 'http://127.0.0.1:5173';

/** A database server and a key pair of the bench's own, and a list of what is to be stopped, last first. */
export interface House {
  postgres: EmbeddedPostgres;
  identity: DevIdentity;
  log: Logger;
  add(stop: () => Promise<void>): void;
  stop(): Promise<void>;
}

/** @throws AlreadyRunningError where another bench runs in this clone */
export async function openHouse(): Promise<House> {
  const lock = await takeDataLock({ dataDir: benchDir, url: 'a bench' });
  const log = pino({ level: 'warn' }, pino.destination({ dest: 2, sync: true }));
  const stops: (() => Promise<void>)[] = [async () => lock.release()];
  let stopping: Promise<void> | null = null;
  const stop = () => {
    stopping ??= (async () => {
      for (const each of stops.reverse())
        await each().catch((err: unknown) => log.error({ err }, 'not stopped'));
    })();
    return stopping;
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => void stop().then(() => process.exit(1)));
  }
  try {
    const databases = ['ide_orchestrator', 'deepagents_runtime'];
    const postgres = await startEmbeddedPostgres({ dataDir: benchDir, log, databases, temporary: true });
    stops.push(postgres.stop);
    const identity = createDevIdentity({ dataDir: benchDir });
    return { postgres, identity, log, add: (each) => void stops.push(each), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

export interface Orchestrator {
  pid: number;
  port: number;
  url: string;
  stop(): Promise<void>;
}

/** Starts the built service as in production, with limits that no load of one user reaches. */
export async function startOrchestrator(
  house: House,
  options: { runtimeUrl: string; nodeFlags?: string[] },
): Promise<Orchestrator> {
  const port = await findFreePort();
  const url = `http://127.0.0.1:${port}`;
  const plenty = '10000000';
  const logFile = path.join(benchDir, 'orchestrator.log');
  const output = fs.openSync(logFile, 'w', 0o600);
  const child = spawn(process.execPath, [...(options.nodeFlags ?? []), path.join(root, 'dist/src/main.js')], {
    cwd: benchDir,
    // Ctrl-C must not reach it before the bench has stopped its load.
    detached: true,
    stdio: ['ignore', output, output],
    env: {
      PATH: process.env.PATH ?? '',
      NODE_ENV: 'production',
      HOST: '127.0.0.1',
      PORT: String(port),
      METRICS_PORT: '0',
      DATABASE_URL: house.postgres.url('ide_orchestrator'),
      DEEPAGENTS_RUNTIME_URL: options.runtimeUrl,
      JWT_PUBLIC_KEY: house.identity.publicKeyPem,
      JWT_ISSUER: house.identity.issuer,
      JWT_AUDIENCE: house.identity.audience,
      CORS_ALLOWED_ORIGINS: frontEnd,
      HTTP_REQUESTS_PER_MINUTE: plenty,
      REFINEMENTS_PER_MINUTE: plenty,
      SOCKETS_PER_USER: plenty,
      // Threads of a round that is over shall not weigh on the next.
      IDLE_ACTOR_MS: '1000',
    },
  });
  fs.closeSync(output);
  child.on('error', () => undefined);
  house.add(() => endChild(child));
  await untilReady(url, child, logFile);
  return { pid: child.pid ?? 0, port, url, stop: () => endChild(child) };
}

async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  await exited;
  clearTimeout(timer);
}

async function untilReady(url: string, child: ChildProcess, logFile: string): Promise<void> {
  const until = performance.now() + 30_000;
  while (performance.now() < until && child.exitCode === null) {
    const answer = await fetch(`${url}/ready`).catch(() => null);
    await answer?.body?.cancel();
    if (answer?.status === 200) return;
    await wait(50);
  }
  const tail = fs.readFileSync(logFile, 'utf8').trim().split('\n').slice(-8).join('\n');
  throw new Error(`The orchestrator did not become ready:\n${tail}`);
}
