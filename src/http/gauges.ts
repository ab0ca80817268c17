import type { CommonQueryMethods } from 'slonik';
import { proposalStates } from '../actors/proposal-types.js';
import type { ThreadDirectory } from '../actors/thread-directory.js';
import { pendingCount } from '../db/outbox.js';
import { withDeadline } from '../db/pool.js';
import { proposalCounts } from '../db/proposals.js';
import { incompleteTranscripts } from '../db/transcripts.js';
import { type Metrics, setCounts } from '../telemetry/metrics.js';
import { activeWindows, type KnownUsers } from './known-users.js';

/** Registers the gauges that are read when somebody asks for them. One that cannot be read keeps its last value. */
export function collectGauges(deps: {
  metrics: Metrics;
  users: KnownUsers;
  directory: Pick<ThreadDirectory, 'counts'>;
  db: CommonQueryMethods;
  deadlineMs: number;
}): void {
  const { metrics, db, deadlineMs } = deps;
  metrics.onCollect(() => setCounts(metrics.activeUsers, 'window', deps.users.active(), activeWindows));
  metrics.onCollect(() => setCounts(metrics.actors, 'state', deps.directory.counts(), proposalStates));
  metrics.onCollect(async () =>
    setCounts(metrics.proposals, 'status', await withDeadline(proposalCounts(db), deadlineMs)),
  );
  metrics.onCollect(async () => metrics.outboxPending.set(await withDeadline(pendingCount(db), deadlineMs)));
  metrics.onCollect(async () =>
    metrics.transcriptsIncomplete.set(await withDeadline(incompleteTranscripts(db), deadlineMs)),
  );
}
