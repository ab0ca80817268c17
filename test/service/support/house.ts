import { randomUUID } from 'node:crypto';
import { type DatabasePool, sql } from 'slonik';
import type { Test } from 'tap';
import { z } from 'zod';
import { createTestDatabase } from '../../support/database.js';
import { createReplica, type Replica, startRefinement, type Watcher } from '../../support/replica.js';
import { createScriptedRuntime, type RuntimeScript } from '../../support/scripted-runtime.js';
import type { ScriptedThread } from '../../support/scripted-thread.js';
import { eventually } from '../../support/until.js';

type Config = NonNullable<Parameters<typeof createReplica>[1]['config']>;

/** A database (the test's own, where given), a scripted runtime and one replica; `more` adds replicas beside it. */
export async function createHouse(
  t: Test,
  script: RuntimeScript = {},
  config: Config = {},
  database?: { url: string; pool: DatabasePool },
) {
  const { url: databaseUrl, pool } = database ?? (await createTestDatabase(t));
  const runtime = await createScriptedRuntime(script);
  t.teardown(() => runtime.stop());
  const more = (sole = false) => createReplica(t, { databaseUrl, runtimeUrl: runtime.url, sole, config });
  const replica = await more(true);
  /** A refinement that runs, its run and a viewer of it. */
  const running = async (on: Replica = replica) => {
    const started = await startRefinement(on, 'ann');
    // It is answered after 5 s, whether or not the runtime knows of the run by then.
    await eventually('the run is there', () => runtime.threads.has(started.threadId));
    const thread = runtime.threads.get(started.threadId) as ScriptedThread;
    const watcher = await on.watch('ann', started.threadId);
    return { ...started, thread, watcher };
  };
  /** The run of the n-th attempt, once it was invoked. */
  const attempt = async (count: number): Promise<ScriptedThread> => {
    let thread: ScriptedThread | undefined;
    await eventually(`attempt ${count}`, () => {
      const jobs = new Set(runtime.requestsOf('invoke').map(({ threadId }) => threadId));
      thread = runtime.threads.get([...jobs][count - 1] ?? '');
      return thread !== undefined;
    });
    return thread as ScriptedThread;
  };
  const proposal = async (id: string) => (await replica.call('ann', 'GET', `/api/proposals/${id}`)).body;
  return { databaseUrl, pool, runtime, replica, more, running, attempt, proposal };
}

export type House = Awaited<ReturnType<typeof createHouse>>;

/** Texts of the frames with a number, in order: what is the same for every viewer. */
export const numberedTexts = (watcher: Watcher) =>
  watcher.texts.filter((_, index) => watcher.frames[index]?.seq !== undefined);

/** A replica that will never beat again owns the proposal. */
export async function giveToDeadNode(house: House, proposalId: string): Promise<string> {
  const id = `dead-${randomUUID()}`;
  await house.pool.query(sql.type(z.object({}))`
    WITH node AS (INSERT INTO nodes (id, name, beat) VALUES (${id}, 'dead', 41))
    UPDATE proposals SET owner_node = ${id}, owner_generation = owner_generation + 1, version = version + 1
    WHERE id = ${proposalId}`);
  return id;
}

export const ownerOf = (house: House, proposalId: string): Promise<string | null> =>
  house.pool.oneFirst(sql.type(z.object({ owner: z.string().nullable() }))`
    SELECT owner_node AS owner FROM proposals WHERE id = ${proposalId}`);
