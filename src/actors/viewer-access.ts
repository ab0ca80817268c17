import type { CommonQueryMethods } from 'slonik';
import { findThreadFor } from '../db/proposals.js';
import { isDeleted } from '../db/threads.js';
import type { Viewer } from '../streams/viewer.js';
import type { ThreadActor } from './thread-actor.js';

/** The viewers of one thread. */
type ViewedThread = Pick<ThreadActor, 'threadId' | 'viewers'>;

/** Who may still look: a viewer that has lost its access is closed on every replica (`guarantees.md` 19). */
export interface ViewerAccess {
  /** Asks of one viewer, whatever it was judged by before. */
  check(threadId: string, viewer: Viewer): Promise<void>;
  /** Asks of all viewers of a thread. */
  checkAll(thread: ViewedThread): Promise<void>;
  /** Asks of those that were judged by an access version before this one. */
  checkSince(thread: ViewedThread, accessVersion: number): Promise<void>;
}

/** Of a thread whose access never changed. */
const FIRST_ACCESS_VERSION = 1;

export function createViewerAccess({ db }: { db: CommonQueryMethods }): ViewerAccess {
  /**
   * Access versions that viewers were judged by since they were let in: each remembers by itself, so that one which joined
   * while others were being judged is not passed over.
   */
  const judgedBy = new WeakMap<Viewer, number>();

  /** Access was withdrawn, or the workflow deleted: who may not look any more goes. */
  async function check(threadId: string, viewer: Viewer): Promise<void> {
    if ((await findThreadFor(db, { threadId, userId: viewer.userId })) !== null) return;
    if (await isDeleted(db, { threadId })) viewer.close(4404, 'deleted');
    else viewer.close(4403, 'access_withdrawn');
  }

  return {
    check,
    async checkAll({ threadId, viewers }) {
      for (const viewer of viewers()) await check(threadId, viewer);
    },
    async checkSince({ threadId, viewers }, accessVersion) {
      if (accessVersion === FIRST_ACCESS_VERSION) return;
      for (const viewer of viewers()) {
        if ((judgedBy.get(viewer) ?? viewer.accessVersion) >= accessVersion) continue;
        await check(threadId, viewer);
        judgedBy.set(viewer, accessVersion);
      }
    },
  };
}
