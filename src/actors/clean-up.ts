import type { CommonQueryMethods } from 'slonik';
import { claimDue, confirm, defer } from '../db/outbox.js';
import type { DeepAgentsRuntimeClient } from '../streams/runtime-client.js';
import type { Logger } from '../telemetry/logger.js';

export interface CleanUpDeps {
  db: CommonQueryMethods;
  client: Pick<DeepAgentsRuntimeClient, 'cleanup' | 'outboxCircuit'>;
  node: string;
  log: Pick<Logger, 'info' | 'warn'>;
  /** Seconds before a clean-up that was not confirmed is due again, after so many tries. */
  delaySeconds: (tries: number) => number;
}

export interface CleanUp {
  deliver(): Promise<void>;
  /** No new round; resolves when the one under way has been noted. */
  stop(): Promise<void>;
}

const BATCH = 20;

/**
 * Delivers what the outbox holds until the runtime confirms it: one round now, another while there is more.
 * Rounds never overlap. Resolves when nothing is due, or the runtime does not answer.
 */
export function createCleanUp(deps: CleanUpDeps): CleanUp {
  let stopped = false;
  let under: Promise<void> | null = null;
  let again = false;

  async function round(): Promise<boolean> {
    if (stopped || deps.client.outboxCircuit.retryAfterSeconds() !== null) return false;
    const due = await claimDue(deps.db, { limit: BATCH, node: deps.node });
    await Promise.all(
      due.map(async (row) => {
        const answer = await deps.client.cleanup(row.runtimeThreadId ?? row.jobId);
        if (answer === 'confirmed') {
          await confirm(deps.db, { id: row.id });
          deps.log.info({ job_id: row.jobId, tries: row.tries }, 'clean-up confirmed');
        } else await defer(deps.db, { id: row.id, seconds: deps.delaySeconds(row.tries) });
      }),
    );
    return due.length === BATCH;
  }

  async function deliver(): Promise<void> {
    do {
      again = false;
      try {
        while (await round());
      } catch (error) {
        deps.log.warn({ err: error }, 'clean-ups could not be delivered');
      }
    } while (again);
  }

  return {
    async stop() {
      stopped = true;
      await under;
    },
    deliver() {
      if (under !== null) {
        again = true;
        return under;
      }
      under = deliver().finally(() => {
        under = null;
      });
      return under;
    },
  };
}
