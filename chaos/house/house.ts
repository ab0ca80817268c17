import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { SignJWT } from 'jose';
import { takeDataLock } from '../../src/embedded/data-lock.js';
import { limitTime } from '../../src/time-limit.js';
import type { Replica, Side } from '../plan.js';
import { replicas, sides } from '../plan.js';
import { createTcpProxy, type TcpProxy } from '../tcp-proxy.js';
import type { Troubles } from '../troubles.js';
import { createFixedPorts } from './fixed-port.js';
import { endLeftovers, noteChild } from './leftovers.js';
import { answersOk, type Part, startPart } from './part.js';
import { type Postgres, startPostgres } from './postgres.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const dataDir = path.join(root, '.chaos');

/** Everything that runs, and the ways between. */
export interface House {
  readonly postgres: Postgres;
  readonly runtime: Part;
  readonly orchestrators: ReadonlyMap<Replica, Orchestrator>;
  readonly logs: string;
  token(user: string): Promise<string>;
  stop(): Promise<void>;
}

export interface Orchestrator {
  readonly part: Part;
  readonly links: Readonly<Record<Side, TcpProxy>>;
  /** For viewers and API calls, through the proxy. */
  readonly url: string;
  readonly metricsUrl: string;
}

export interface HouseOptions {
  /** Name of the folder of logs. */
  name: string;
  onSurprise: (what: string) => void;
  onSpawn: (part: string, pid: number) => void;
  signal: AbortSignal;
  troubles: Troubles;
}

const host = '127.0.0.1';
const startMs = 90_000;
const tokenSeconds = 24 * 60 * 60;
const issuer = 'chaos';
const audience = 'ide-orchestrator';

/** Starts PostgreSQL, the runtime and three replicas on loopback; resolves when all of them serve. */
export async function openHouse(options: HouseOptions): Promise<House> {
  const lock = await takeDataLock({ dataDir, url: 'a chaos campaign' });
  const stops: (() => Promise<void> | void)[] = [() => lock.release()];
  let stopping: Promise<void> | null = null;
  const stop = () => {
    stopping ??= (async () => {
      for (const each of stops.reverse()) await each();
    })();
    return stopping;
  };
  const childrenFile = path.join(dataDir, 'children.json');
  await endLeftovers(childrenFile);
  const logs = path.join(dataDir, options.name);
  fs.rmSync(logs, { recursive: true, force: true });
  fs.mkdirSync(logs, { recursive: true });
  try {
    const nextPort = createFixedPorts();
    const postgres = await startPostgres({
      dataDir,
      port: await nextPort(),
      databases: ['ide_orchestrator', 'deepagents_runtime'],
      logFile: path.join(logs, 'postgres.log'),
      troubles: options.troubles,
    });
    stops.push(postgres.stop);
    const secret = randomBytes(32).toString('hex');
    const runtimePort = await nextPort();
    const runtimeLinks: TcpProxy[] = [];
    const spawned = (name: string) => (pid: number) => {
      noteChild(childrenFile, pid);
      options.onSpawn(name, pid);
    };
    const runtime = startPart({
      name: 'runtime',
      entry: path.join(root, 'runtime/dist/src/main.js'),
      cwd: dataDir,
      logFile: path.join(logs, 'runtime.log'),
      env: {
        PATH: process.env.PATH ?? '',
        NODE_ENV: 'production',
        LOG_LEVEL: 'info',
        RUNTIME_HOST: host,
        RUNTIME_PORT: String(runtimePort),
        RUNTIME_DATABASE_URL: postgres.url('deepagents_runtime'),
        MODEL: 'scripted',
      },
      serves: () => answersOk(`http://${host}:${runtimePort}/ready`),
      onSpawn(pid) {
        spawned('runtime')(pid);
        for (const link of runtimeLinks) void link.accept();
      },
      // What is not there refuses; a proxy that took the connection would hide that.
      onGone: () => {
        for (const link of runtimeLinks) void link.refuse();
      },
      troubles: options.troubles,
      onSurprise: options.onSurprise,
    });
    stops.push(runtime.stop);

    const orchestrators = new Map<Replica, Orchestrator>();
    const all = (what: (one: Orchestrator) => Promise<void>) => async () =>
      void (await Promise.all([...orchestrators.values()].map(what)));
    stops.push(
      all(async ({ links }) => void (await Promise.all(sides.map((side) => links[side].close())))),
      all(({ part }) => part.stop()),
    );
    for (const name of replicas) {
      const [port, metricsPort] = [await nextPort(), await nextPort()];
      const targets = { viewers: port, runtime: runtimePort, database: postgres.port };
      const links = {} as Record<Side, TcpProxy>;
      for (const side of sides) {
        links[side] = await createTcpProxy({ port: await nextPort(), targetPort: targets[side] });
      }
      runtimeLinks.push(links.runtime);
      const part = startPart({
        name,
        entry: path.join(root, 'dist/src/main.js'),
        cwd: dataDir,
        logFile: path.join(logs, `${name}.log`),
        env: {
          PATH: process.env.PATH ?? '',
          NODE_ENV: 'production',
          HOST: host,
          PORT: String(port),
          METRICS_PORT: String(metricsPort),
          DATABASE_URL: postgres.url('ide_orchestrator', links.database.port),
          DEEPAGENTS_RUNTIME_URL: `http://${host}:${links.runtime.port}`,
          JWT_SECRET: secret,
          JWT_ISSUER: issuer,
          JWT_AUDIENCE: audience,
          CORS_ALLOWED_ORIGINS: 'http://127.0.0.1:5173',
          ...settings,
        },
        serves: () => answersOk(`http://${host}:${port}/ready`),
        onSpawn(pid) {
          spawned(name)(pid);
          void links.viewers.accept();
        },
        onGone: () => void links.viewers.refuse(),
        troubles: options.troubles,
        onSurprise: options.onSurprise,
      });
      orchestrators.set(name, {
        part,
        links,
        url: `http://${host}:${links.viewers.port}`,
        metricsUrl: `http://${host}:${metricsPort}/metrics`,
      });
    }
    const parts = [runtime, ...[...orchestrators.values()].map(({ part }) => part)];
    const ready = Promise.all(parts.map((part) => part.untilReady()));
    const { signal: patience } = limitTime(options.signal, startMs);
    await Promise.race([ready, once(patience, 'abort')]);
    if (patience.aborted)
      throw new Error(`The parts do not become ready; see ${logs}`, { cause: patience.reason });
    return {
      postgres,
      runtime,
      orchestrators,
      logs,
      token: (user) =>
        new SignJWT({})
          .setProtectedHeader({ alg: 'HS256' })
          .setSubject(user)
          .setIssuer(issuer)
          .setAudience(audience)
          .setIssuedAt()
          .setExpirationTime(Math.floor(Date.now() / 1000) + tokenSeconds)
          .sign(Buffer.from(secret)),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

const plenty = '10000000';
/** What differs from the defaults, and why. */
const settings = {
  // A handful of users makes the load of hundreds.
  HTTP_REQUESTS_PER_MINUTE: plenty,
  HTTP_UNAUTHENTICATED_PER_MINUTE: plenty,
  REFINEMENTS_PER_MINUTE: plenty,
  SOCKETS_PER_USER: plenty,
  // So that a viewer that stops reading is soon a slow one.
  VIEWER_BUDGET_BYTES: '65536',
  // What is left in memory is looked at soon after the end.
  IDLE_ACTOR_MS: '2000',
};
