import type { CommonQueryMethods } from 'slonik';
import { ensureUser } from '../db/users.js';

/** The users that called lately. */
export interface KnownUsers {
  /** Writes the user's row, once in the life of this process, and notes the call. */
  seen(db: CommonQueryMethods, userId: string): Promise<void>;
  /** Users that called within each window, for the gauge. */
  active(): Record<string, number>;
}

const windows = { '5m': 5 * 60_000, '1h': 60 * 60_000, '24h': 24 * 60 * 60_000 } as const;
export const activeWindows = Object.keys(windows);
/** Beyond, the one who has been away longest is forgotten, and costs one statement when coming back. */
const kept = 100_000;

export function createKnownUsers(deps: { now: () => number }): KnownUsers {
  // In order of the last call, because each call puts its user at the end.
  const lastCall = new Map<string, number>();
  return {
    async seen(db, userId) {
      if (!lastCall.delete(userId)) await ensureUser(db, userId);
      lastCall.delete(userId);
      lastCall.set(userId, deps.now());
      if (lastCall.size > kept) {
        const oldest = lastCall.keys().next();
        if (oldest.done !== true) lastCall.delete(oldest.value);
      }
    },
    active() {
      const counts = { '5m': 0, '1h': 0, '24h': 0 };
      const now = deps.now();
      for (const at of lastCall.values()) {
        for (const [name, length] of Object.entries(windows)) {
          if (now - at <= length) counts[name as keyof typeof counts] += 1;
        }
      }
      return counts;
    },
  };
}
