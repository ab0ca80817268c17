import fs from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import type { Orchestrator } from '../house/house.js';

/** What a replica holds. */
export interface Holding {
  actors: number;
  viewers: number;
  /** Connections to PostgreSQL: the pool, LISTEN and the heartbeat. */
  database: number;
  /** Connections to the runtime: streams and calls. */
  runtime: number;
  /** Open files and sockets; null where the system does not tell. */
  descriptors: number | null;
  timers: number;
  heapMiB: number;
}

const sumOf = (text: string, metric: string): number =>
  [...text.matchAll(new RegExp(`^${metric}(?:\\{[^}]*\\})? ([\\d.e+-]+)$`, 'gm'))].reduce(
    (sum, [, value]) => sum + Number(value),
    0,
  );

export async function holdingOf(orchestrator: Orchestrator): Promise<Holding> {
  const answer = await fetch(orchestrator.metricsUrl, { signal: AbortSignal.timeout(10_000) });
  const text = await answer.text();
  const resources = 'nodejs_active_resources';
  const timers = new RegExp(`^(?:ide_orchestrator_)?${resources}\\{[^}]*type="Timeout"[^}]*\\} (\\d+)$`, 'm');
  return {
    actors: sumOf(text, 'ide_orchestrator_actors'),
    viewers: sumOf(text, 'ide_orchestrator_websocket_connections'),
    database: orchestrator.links.database.connections(),
    runtime: orchestrator.links.runtime.connections(),
    descriptors: descriptorsOf(orchestrator.part.pid()),
    timers: Number(timers.exec(text)?.[1] ?? 0),
    heapMiB: Math.round(sumOf(text, '(?:ide_orchestrator_)?nodejs_heap_size_used_bytes') / 1024 / 1024),
  };
}

function descriptorsOf(pid: number | null): number | null {
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return null;
  }
}

/**
 * What more than at the beginning may be there for good reasons: the pool keeps up to 10 connections that it has opened
 * (12 with LISTEN and the heartbeat), calls to the runtime and API keep some sockets alive for a moment, and garbage is
 * collected when V8 sees fit, which is why the heap gets half as much again and 48 MiB.
 */
const poolAndOwn = 12;
const keptAlive = 20;
const slackTimers = 30;

/** What is held that was not held at the beginning, when nothing runs any more. */
export function faultsOfHolding(name: string, baseline: Holding, now: Holding): string[] {
  const faults: string[] = [];
  const over = (what: string, value: number, limit: number) => {
    if (value > limit) faults.push(`${name} holds ${value} ${what}, more than ${limit}`);
  };
  over('actors', now.actors, baseline.actors);
  over('viewers', now.viewers, baseline.viewers);
  over('connections to PostgreSQL', now.database, poolAndOwn);
  over('connections to the runtime', now.runtime, baseline.runtime + keptAlive);
  if (now.descriptors !== null && baseline.descriptors !== null)
    over('descriptors', now.descriptors, baseline.descriptors + poolAndOwn + 2 * keptAlive);
  over('timers', now.timers, baseline.timers + slackTimers);
  over('MiB of heap', now.heapMiB, Math.round(baseline.heapMiB * 1.5 + 48));
  return faults;
}

/** Looks until nothing is wrong any more, at most `withinMs`; answers what still is. */
export async function untilBaseline(
  name: string,
  orchestrator: Orchestrator,
  baseline: Holding,
  withinMs: number,
): Promise<{ faults: string[]; holding: Holding | null }> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const holding = await holdingOf(orchestrator).catch(() => null);
    const faults =
      holding === null ? [`${name} does not tell its metrics`] : faultsOfHolding(name, baseline, holding);
    if (faults.length === 0 || performance.now() > deadline) return { faults, holding };
    await wait(500);
  }
}
