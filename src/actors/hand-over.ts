import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import { giveUpOwned } from '../db/threads.js';
import type { Logger } from '../telemetry/logger.js';
import { guarded } from './rounds.js';
import type { ThreadActor } from './thread-actor.js';

export interface HandOverDeps {
  db: CommonQueryMethods;
  node: string;
  /** Monotonic milliseconds. */
  now: () => number;
  log: Pick<Logger, 'warn'>;
}

/** How a replica that stops leaves its threads to the others, within a time that a database that is away cannot stretch. */
export interface HandOver {
  /**
   * Stops all actors. Those that are committing an end get some time for it, the others are given up before their viewers
   * are closed: these come back with their position, to replicas that take over what they watch.
   *
   * @param begun what was begun before the stop, and may make actors still
   */
  all(begun: Promise<unknown>, actors: () => Iterable<ThreadActor>): Promise<void>;
  /** Gives up what names this replica by now. */
  rest(): Promise<void>;
}

/** For all of the handing over, so that a database that is away cannot keep the process from ending in time. */
const HAND_OVER_MS = 8_000;
/** Of that, what has begun already gets so much, and an end that is being committed. */
const BEGUN_WAIT_MS = 2_000;
const ENDING_WAIT_MS = 5_000;
const REST_WAIT_MS = 2_000;
const GIVE_UP_BATCH = 200;

export function createHandOver({ db, node, now, log }: HandOverDeps): HandOver {
  /** Everything that names us, in as few statements as it takes; what cannot be given up is taken over as from the dead. */
  async function giveUpAll(except: readonly string[], waitMs: number): Promise<void> {
    const giving = guarded(log, 'threads could not be given up', async () => {
      while ((await giveUpOwned(db, { node, except, limit: GIVE_UP_BATCH })) === GIVE_UP_BATCH);
    });
    await Promise.race([giving, wait(Math.max(0, waitMs), undefined, { ref: false })]);
  }

  return {
    async all(begun, actors) {
      const until = now() + HAND_OVER_MS;
      // What is being taken over at this moment has an actor then, and is handed over like the rest.
      await Promise.race([begun, wait(BEGUN_WAIT_MS, undefined, { ref: false })]);
      const live = [...actors()];
      const ending = live.filter((actor) => actor.state() === 'finalizing');
      const others = live.filter((actor) => !ending.includes(actor));
      for (const actor of others) actor.halt();
      const kept = ending.map((actor) => actor.threadId);
      await giveUpAll(kept, until - now());
      for (const actor of others) actor.stop();
      const endingMs = Math.min(ENDING_WAIT_MS, until - now());
      await Promise.all(ending.map((actor) => actor.ended(endingMs)));
      for (const actor of ending) actor.stop();
      if (ending.length > 0) await giveUpAll([], until - now());
    },
    rest: () => giveUpAll([], REST_WAIT_MS),
  };
}
