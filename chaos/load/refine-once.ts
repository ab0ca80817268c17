import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Decision, Reference, Refinement } from '../check/check-outcome.js';
import { faultsBetweenViewers, faultsOfViewer } from '../check/check-viewer.js';
import type { ViewerLog } from '../check/viewer-log.js';
import { replicas } from '../plan.js';
import type { Answer, Api, Call } from './api.js';
import { type ViewerDeps, watchThread } from './viewer.js';

export interface RefineDeps extends ViewerDeps {
  api: Api;
  /** Nothing new is begun after this. */
  drain: AbortSignal;
  /** Everything is given up. */
  stop: AbortSignal;
  /** What a viewer's log says on its own, with the logs to look at. */
  onViewerFaults: (threadId: string, faults: readonly string[], logs: readonly ViewerLog[]) => void;
}

/** What is kept of a refinement until the databases are read. */
export interface Refined extends Refinement {
  threadId: string | null;
  logs: readonly Pick<ViewerLog, 'viewer' | 'ends'>[];
}

/** Its states fill every buffer on the way to somebody who does not read. */
const isBig = ({ baseFiles }: Reference) => Object.values(baseFiles).join('').length > 500_000;
const users = ['ann', 'ben', 'cleo', 'dan', 'eve'];

/** One refinement from its workflow to its decision, with those who watch it. Null where it never got so far. */
export async function refineOnce(
  deps: RefineDeps,
  reference: Reference,
  name: string,
): Promise<Refined | null> {
  const { random, api } = deps;
  const user = random.pick(users);
  const post = (path: string, body: object | undefined, more: Partial<Call> = {}): Promise<Answer> =>
    api.call({
      user,
      method: 'POST',
      path,
      ...(body === undefined ? {} : { body }),
      key: randomUUID(),
      signal: deps.stop,
      ...more,
    });

  const workflow = await post('/api/workflows', { name, files: reference.baseFiles });
  if (workflow.status !== 201) {
    deps.onFault(`a workflow was refused with ${workflow.status} ${String(workflow.body.code)}`);
    return null;
  }
  const workflowId = String(workflow.body.id);
  const refined = { workflowId, reference, proposalId: null, threadId: null, decisions: [], logs: [] };
  // A front end that is told that the agents are away asks again, but not for ever.
  const patience = AbortSignal.any([deps.stop, deps.drain]);
  const started = await post(
    `/api/workflows/${workflowId}/refinements`,
    { user_prompt: reference.prompt },
    { signal: patience },
  ).catch(() => null);
  if (started === null) return refined;
  if (started.status !== 202) {
    deps.onFault(`a start was answered with ${started.status} ${String(started.body.code)}`);
    return refined;
  }
  const proposalId = String(started.body.proposal_id);
  const threadId = String(started.body.thread_id);

  const watching: Promise<ViewerLog>[] = [];
  const watch = (options: { stays: boolean; slow?: boolean }) => {
    const viewer = `${name}/${watching.length + 1}`;
    watching.push(
      watchThread(deps, { name: viewer, user, threadId, slow: false, ...options, signal: deps.stop }),
    );
  };
  const later = async (milliseconds: number, work: () => unknown) => {
    await wait(milliseconds, undefined, { signal: deps.stop });
    await work();
  };
  const others: Promise<unknown>[] = [];
  // Some proposals have nobody who stays, some nobody at all.
  if (random.chance(0.8)) watch({ stays: true });
  if (random.chance(0.5)) watch({ stays: false });
  if (random.chance(isBig(reference) ? 0.9 : 0.1)) watch({ stays: true, slow: true });
  if (random.chance(0.3))
    others.push(later(random.whole(500, 12_000), () => watch({ stays: random.chance(0.5) })));
  if (random.chance(0.1)) {
    others.push(
      later(random.whole(100, 12_000), () =>
        post(`/api/proposals/${proposalId}/cancel`, undefined, {}),
      ).catch(() => undefined),
    );
  }

  const status = await untilEnded(deps, { user, proposalId });
  await Promise.allSettled(others);
  // A late viewer of what is finished.
  if (status !== null && random.chance(0.2)) watch({ stays: true });
  const decisions = status === 'completed' ? await decide(deps, post, proposalId) : [];
  const logs = await Promise.all(watching);
  const faults = [...logs.flatMap(faultsOfViewer), ...faultsBetweenViewers(logs)];
  deps.onViewerFaults(threadId, faults, logs);
  return {
    ...refined,
    proposalId,
    threadId,
    decisions,
    logs: logs.map(({ viewer, ends }) => ({ viewer, ends })),
  };
}

/** Asks now and then until the proposal is decided by its run; null where everything is given up before. */
async function untilEnded(
  deps: RefineDeps,
  of: { user: string; proposalId: string },
): Promise<string | null> {
  for (;;) {
    try {
      await wait(deps.random.whole(1_500, 3_000), undefined, { signal: deps.stop });
      const { status, body } = await deps.api.call({
        user: of.user,
        method: 'GET',
        path: `/api/proposals/${of.proposalId}`,
        signal: deps.stop,
      });
      if (status !== 200) deps.onFault(`proposal ${of.proposalId} was answered with ${status}`);
      else if (body.status !== 'processing') return String(body.status);
    } catch {
      return null;
    }
  }
}

/** Approves, rejects, both at once on two replicas, or leaves it. */
async function decide(
  deps: RefineDeps,
  post: (path: string, body: object | undefined, more: Partial<Call>) => Promise<Answer>,
  proposalId: string,
): Promise<Decision[]> {
  const kinds = deps.random.pick<Decision['kind'][]>([
    ['approve'],
    ['approve', 'approve'],
    ['approve', 'reject'],
    ['approve', 'reject'],
    ['reject'],
    [],
  ]);
  const first = deps.random.whole(0, replicas.length - 1);
  const made = await Promise.allSettled(
    kinds.map(async (kind, index): Promise<Decision> => {
      const replica = replicas[(first + index) % replicas.length] ?? replicas[0];
      const { status, body } = await post(`/api/proposals/${proposalId}/${kind}`, {}, { replica });
      if (status !== 200 && !(status === 409 && body.code === 'already_resolved'))
        deps.onFault(`${kind} of ${proposalId} was answered with ${status} ${String(body.code)}`);
      return { kind, status };
    }),
  );
  return made.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
}
