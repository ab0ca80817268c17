import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { AppError } from '../errors.js';

export type RateLimitScope = 'user' | 'address' | 'refinements' | 'sockets';

export interface RateLimits {
  /** Counts one call; throws AppError `rate_limited` with the seconds to wait. */
  user(userId: string): Promise<void>;
  refinement(userId: string): Promise<void>;
  /** A call without a valid token, by the address of its socket. */
  address(address: string): Promise<void>;
  /** Takes one of the user's places for open sockets, or throws; to be given back once. */
  takeSocket(userId: string): () => void;
}

/** Limits of this replica, in memory. `onLimited` hears each refusal. */
export function createRateLimits(deps: {
  http: {
    requestsPerMinute: number;
    unauthenticatedPerMinute: number;
    refinementsPerMinute: number;
    socketsPerUser: number;
  };
  onLimited: (scope: RateLimitScope) => void;
}): RateLimits {
  const perMinute = (points: number) => new RateLimiterMemory({ points, duration: 60 });
  const users = perMinute(deps.http.requestsPerMinute);
  const refinements = perMinute(deps.http.refinementsPerMinute);
  const addresses = perMinute(deps.http.unauthenticatedPerMinute);
  const sockets = new Map<string, number>();

  const refuse = (scope: RateLimitScope, seconds: number, detail: string) => {
    deps.onLimited(scope);
    return new AppError('rate_limited', detail, { retryAfterSeconds: Math.max(1, Math.ceil(seconds)) });
  };
  const consume = async (limiter: RateLimiterMemory, scope: RateLimitScope, key: string, detail: string) => {
    try {
      await limiter.consume(key);
    } catch (refusal) {
      if (!(refusal instanceof RateLimiterRes)) throw refusal;
      throw refuse(scope, refusal.msBeforeNext / 1000, detail);
    }
  };
  return {
    user: (userId) =>
      consume(
        users,
        'user',
        userId,
        `At most ${deps.http.requestsPerMinute} requests a minute are answered.`,
      ),
    refinement: (userId) =>
      consume(
        refinements,
        'refinements',
        userId,
        `At most ${deps.http.refinementsPerMinute} refinements a minute can be started.`,
      ),
    address: (address) =>
      consume(
        addresses,
        'address',
        address,
        'Too many requests without a valid token came from this address.',
      ),
    takeSocket(userId) {
      const open = sockets.get(userId) ?? 0;
      if (open >= deps.http.socketsPerUser) {
        throw refuse('sockets', 5, `At most ${deps.http.socketsPerUser} sockets can be open at once.`);
      }
      sockets.set(userId, open + 1);
      let held = true;
      return () => {
        if (!held) return;
        held = false;
        const left = (sockets.get(userId) ?? 1) - 1;
        if (left <= 0) sockets.delete(userId);
        else sockets.set(userId, left);
      };
    },
  };
}
