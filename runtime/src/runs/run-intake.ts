import { setTimeout as sleep } from 'node:timers/promises';
import { type InvokeRequest, isStorableText } from '@ide-orchestrator/protocol';
import type { AgentRunner, RunInput } from '../agent-runner.js';
import type { RunStore } from '../db/runs-store.js';
import { isProblemCode, Problem, toError } from '../errors.js';
import type { Logger } from '../telemetry/logger.js';
import type { RunQueue } from './run-queue.js';
import type { RunSupervisor } from './run-supervisor.js';

/** Takes jobs in. */
export interface RunIntake {
  /**
   * Writes the job and starts it; a job that is known is left as it is.
   * @param traceparent of the span that the run belongs under.
   * @throws {Problem} validation_failed, invalid_model, thread_gone, queue_full, not_ready.
   */
  invoke(request: InvokeRequest, traceparent: string | null): Promise<{ threadId: string }>;
  /** Resolves when no invoke of the thread is under way. */
  settled(threadId: string): Promise<void>;
  /** Forgets what it was still trying to find out. */
  stop(): void;
}

export interface RunIntakeDeps {
  runner: AgentRunner;
  store: RunStore;
  supervisor: RunSupervisor;
  queue: RunQueue;
  logger: Logger;
}

/** How long the fate of an insert without an answer is asked for: longer than its statement can live. */
const doubtMs = 30_000;

export function createRunIntake(
  { runner, store, supervisor, queue, logger }: RunIntakeDeps,
  limits: { runDeadlineMs: number; queueLimit: number },
): RunIntake {
  const underWay = new Map<string, Promise<{ threadId: string }>>();
  const doubts = new Set<string>();
  /** Looks at a row in doubt: an invoke that comes meanwhile must not start the run beside them. */
  const looks = new Map<string, Promise<void>>();
  const stopping = new AbortController();

  const takeInDoubt = async (threadId: string): Promise<void> => {
    const taken = await store.takeUnfinished(threadId).catch(() => []);
    for (const run of taken) supervisor.start(run, false);
  };

  /** An insert without an answer may have been committed: then nobody runs it until we look. */
  const settleDoubt = async (threadId: string): Promise<void> => {
    if (doubts.has(threadId)) return;
    doubts.add(threadId);
    for (let waited = 0; waited < doubtMs && !stopping.signal.aborted; waited += 500) {
      await sleep(500, undefined, { signal: stopping.signal, ref: false }).catch(() => {});
      if (supervisor.get(threadId) !== undefined) break;
      if (underWay.has(threadId)) continue;
      const look = takeInDoubt(threadId).finally(() => looks.delete(threadId));
      looks.set(threadId, look);
      await look;
    }
    doubts.delete(threadId);
  };

  const take = async (request: InvokeRequest, traceparent: string | null): Promise<{ threadId: string }> => {
    const threadId = request.job_id;
    const input: RunInput = {
      agent_definition: request.agent_definition,
      input_payload: request.input_payload as RunInput['input_payload'],
    };
    check(runner, request, input);
    await looks.get(threadId);
    const hasRoom = queue.hasRoom;
    if (!hasRoom && queue.length >= limits.queueLimit) {
      // A job that was here before gets its answer all the same: "not now" would have it sent again, for ever if it is gone.
      const fate = await reached(() => store.fateOf(threadId));
      if (fate === 'known') return { threadId };
      if (fate === 'gone') throw gone();
      throw new Problem('queue_full', 'Too many jobs wait for a start');
    }
    const run = { threadId, input, traceId: request.trace_id, traceparent };
    const written = await reached(() =>
      store.insert(run, hasRoom ? 'running' : 'queued', limits.runDeadlineMs),
    ).catch((thrown: unknown) => {
      void settleDoubt(threadId);
      throw thrown;
    });
    if (written === 'gone') throw gone();
    if (written === 'inserted')
      supervisor.start({ ...run, epoch: 1, generation: 1, cancelled: false }, hasRoom);
    else logger.info({ thread_id: threadId }, 'job known already');
    return { threadId };
  };

  return {
    invoke(request, traceparent) {
      const threadId = request.job_id;
      // One at a time for each job: the second finds the first one's run, and never a row without a run.
      const before = underWay.get(threadId);
      if (before !== undefined) return before;
      const answer = take(request, traceparent).finally(() => underWay.delete(threadId));
      underWay.set(threadId, answer);
      return answer;
    },
    async settled(threadId) {
      await underWay.get(threadId)?.catch(() => {});
    },
    stop: () => stopping.abort(),
  };
}

const gone = () => new Problem('thread_gone', 'This job was cleaned up');

/** @throws {Problem} not_ready, where PostgreSQL cannot be asked. */
export async function reached<T>(statement: () => Promise<T>): Promise<T> {
  try {
    return await statement();
  } catch (thrown) {
    throw new Problem('not_ready', 'The database cannot be reached', { cause: thrown });
  }
}

function check(runner: AgentRunner, request: InvokeRequest, input: RunInput): void {
  const unstorable = unstorablePathOf(request);
  if (unstorable !== null)
    throw new Problem('validation_failed', `${unstorable} must not contain U+0000 or a lone surrogate`);
  try {
    runner.check(input);
  } catch (thrown) {
    const error = toError(thrown);
    const code = 'code' in error && isProblemCode(error.code) ? error.code : 'validation_failed';
    throw new Problem(code, error.message, { cause: thrown });
  }
}

/** Where text stands that no database takes; null where all of it can be stored. */
function unstorablePathOf(value: unknown): string | null {
  if (typeof value === 'string') return isStorableText(value) ? null : '';
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, part] of Object.entries(value)) {
    if (!isStorableText(key)) return 'a key';
    const found = unstorablePathOf(part);
    // The path is put together on the way out: inputs are big, and almost all of them are fine.
    if (found !== null) return found === '' ? key : `${key}.${found}`;
  }
  return null;
}
