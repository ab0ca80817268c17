import { setTimeout as wait } from 'node:timers/promises';
import { limitTime } from '../../src/time-limit.js';
import type { House } from '../house/house.js';
import { type Replica, replicas } from '../plan.js';
import type { Random } from '../random.js';

export interface Answer {
  status: number;
  body: Record<string, unknown>;
}

export interface Call {
  user: string;
  method: 'GET' | 'POST';
  path: string;
  body?: object;
  /** Makes repeating safe. */
  key?: string;
  /** The first try goes there; others to any. */
  replica?: Replica;
  /** Given up after this. */
  signal: AbortSignal;
}

/** The REST API as a good front end calls it: from any replica, again until there is an answer. */
export interface Api {
  /** Rejects only when the signal does. */
  call(call: Call): Promise<Answer>;
  headers(user: string): Promise<Record<string, string>>;
}

const answerWithinMs = 15_000;
const longestPauseMs = 4_000;

/** Not now: the same call later. */
const isPassing = ({ status, body }: Answer): boolean =>
  status === 503 || status === 429 || (status === 409 && body.code === 'idempotency_in_flight');

export function createApi(deps: {
  house: House;
  random: Random;
  /** An answer that no failure around it excuses. */
  onFault: (what: string) => void;
  onRepeat: () => void;
}): Api {
  const tokens = new Map<string, Promise<string>>();
  const headers = async (user: string) => {
    const token = tokens.get(user) ?? deps.house.token(user);
    tokens.set(user, token);
    return { authorization: `Bearer ${await token}` };
  };

  async function tryOnce(
    call: Call,
    replica: Replica,
  ): Promise<{ answer: Answer; retryAfterMs: number } | null> {
    const url = deps.house.orchestrators.get(replica)?.url ?? '';
    const limit = limitTime(call.signal, answerWithinMs);
    try {
      const response = await fetch(`${url}${call.path}`, {
        method: call.method,
        headers: {
          ...(await headers(call.user)),
          ...(call.key === undefined ? {} : { 'idempotency-key': call.key }),
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        signal: limit.signal,
      });
      const body = (await response.json()) as Record<string, unknown>;
      const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1_000;
      return { answer: { status: response.status, body }, retryAfterMs };
    } catch {
      // Cut, reset, too late: what became of it is not known, which is what the key is for.
      return null;
    } finally {
      limit.end();
    }
  }

  return {
    headers,
    async call(call) {
      for (let tries = 0; ; tries++) {
        call.signal.throwIfAborted();
        const replica = tries === 0 && call.replica !== undefined ? call.replica : deps.random.pick(replicas);
        const outcome = await tryOnce(call, replica);
        if (outcome !== null && !isPassing(outcome.answer)) {
          const { status, body } = outcome.answer;
          if (status >= 500)
            deps.onFault(`${call.method} ${call.path} was answered with ${status} ${String(body.code)}`);
          else return outcome.answer;
        }
        deps.onRepeat();
        const pause = Math.min(200 * 2 ** Math.min(tries, 5), longestPauseMs) * deps.random.between(0.5, 1);
        // A replica that knows the runtime to be away is not the only one: wait no longer than for an answer.
        await wait(Math.max(pause, Math.min(outcome?.retryAfterMs ?? 0, longestPauseMs)), undefined, {
          signal: call.signal,
        });
      }
    },
  };
}
