import { emptyRequest, refinementStarted, startRefinementRequest } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import { type RunInput, runInputOf } from '../actors/run-input.js';
import type { ThreadDirectory } from '../actors/thread-directory.js';
import { answerProposalKey, findProposalKey } from '../db/idempotency.js';
import { findProposalFor, keepStart, startProposal } from '../db/proposals.js';
import type { ThreadRow } from '../db/row-schemas.js';
import { AppError, toError } from '../errors.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type DatabaseGate, unconfirmed } from './database-gate.js';
import { keyInFlight, keyMismatch } from './idempotency.js';
import { noProposal, notOwner } from './proposals.js';
import type { RateLimits } from './rate-limits.js';
import { type Answer, type Call, type Route, route } from './route.js';
import { noWorkflow } from './workflows.js';

export interface RefinementDeps {
  db: CommonQueryMethods;
  directory: ThreadDirectory;
  rateLimits: RateLimits;
  gate: DatabaseGate;
  ids: () => string;
  now: () => number;
  nodeId: string;
  totalMs: number;
  metrics: Pick<Metrics, 'refinementsStartedTotal'>;
  log: Logger;
}

interface Request {
  workflowId: string;
  userPrompt: string;
  contextFilePath: string | null;
  contextSelection: string | null;
  retryOf: string | null;
}

const tag = 'refinements';

/** Starting runs: from a prompt, or again from a proposal that failed. */
export function refinementRoutes(deps: RefinementDeps): Route[] {
  const shared = {
    tag,
    answers: { 202: refinementStarted },
    idempotency: 'proposal' as const,
    // It waits for the runtime as well, and must not hold a place at the database meanwhile.
    waitsElsewhere: true,
  };
  return [
    route({
      ...shared,
      method: 'POST',
      path: '/api/workflows/{workflow_id}/refinements',
      name: 'startRefinement',
      summary: 'Start a refinement of the draft; answers before the run has done anything',
      body: startRefinementRequest,
      errors: ['not_found', 'runtime_unavailable'],
      handle: (call) =>
        start(deps, call, {
          workflowId: call.params.workflow_id ?? '',
          userPrompt: call.body.user_prompt,
          contextFilePath: call.body.context_file_path ?? null,
          contextSelection: call.body.context_selection ?? null,
          retryOf: null,
        }),
    }),
    route({
      ...shared,
      method: 'POST',
      path: '/api/proposals/{proposal_id}/retry',
      name: 'retryProposal',
      summary: 'Start the same prompt again on the draft of now, as a new proposal; only of a failed one',
      body: emptyRequest,
      errors: ['not_found', 'forbidden', 'proposal_not_failed', 'runtime_unavailable'],
      async handle(call) {
        const proposalId = call.params.proposal_id ?? '';
        const found = await deps.gate(() =>
          findProposalFor(call.db, { proposalId, userId: call.identity.userId }),
        );
        if (found === null) throw noProposal();
        if (found.access !== 'owner') throw notOwner();
        if (found.row.status !== 'failed') {
          throw new AppError(
            'proposal_not_failed',
            `The proposal is ${found.row.status}; only a failed one is retried.`,
          );
        }
        const { workflowId, userPrompt, contextFilePath, contextSelection } = found.row;
        return start(deps, call, {
          workflowId,
          userPrompt,
          contextFilePath,
          contextSelection,
          retryOf: proposalId,
        });
      },
    }),
  ];
}

async function start(deps: RefinementDeps, call: Call<unknown, unknown>, request: Request): Promise<Answer> {
  const before = await repeated(deps, call);
  if (before !== null) return before;
  await deps.rateLimits.refinement(call.identity.userId);
  const seconds = deps.directory.runtimeRetryAfterSeconds();
  // Before anything is written: a proposal that is born while the runtime is known to be away would only fail.
  if (seconds !== null) throw runtimeAway(seconds);
  const threadId = deps.ids();
  // The transaction may run again: what its last run made is what was stored.
  let input: RunInput | null = null;
  const written = await deps.gate(() =>
    startProposal(call.db, {
      ...request,
      proposalId: deps.ids(),
      threadId,
      transitionId: deps.ids(),
      userId: call.identity.userId,
      buildInput(baseFiles) {
        input = runInputOf(request, baseFiles, new Date(deps.now()).toISOString());
        return input;
      },
      ownerNode: deps.nodeId,
      totalDeadlineMs: deps.totalMs,
      idempotency: call.key,
    }),
  );
  switch (written.kind) {
    case 'not_found':
      throw noWorkflow();
    case 'mismatch':
      throw keyMismatch();
    case 'in_flight':
      throw keyInFlight();
    case 'replay':
      return started(written.row);
    case 'ok':
      break;
  }
  const outcome = await deps.directory.startRun(written.row, input).catch((error: unknown) => {
    // The row is written and names this replica: its actor is revived from it whatever happened here.
    deps.log.error({ err: toError(error), thread_id: threadId }, 'the first invoke could not be watched');
    return 'unknown' as const;
  });
  const { proposalId } = written.row;
  const refused =
    outcome === 'refused' || (outcome === 'refusing' && !(await isKept(deps, call, proposalId)));
  if (refused) throw runtimeAway(deps.directory.runtimeRetryAfterSeconds() ?? 5);
  deps.metrics.refinementsStartedTotal.inc();
  if (call.key !== null) {
    await deps
      .gate(() => answerProposalKey(call.db, { proposalId }))
      .catch((error: unknown) => {
        deps.log.warn(
          { err: toError(error), proposal_id: proposalId },
          'the key of a refinement could not be marked',
        );
      });
  }
  return started(written.row);
}

/**
 * Whether the start may be promised. Its refusal may be under way, and takes the row and the key with it: what of the two
 * is committed first is the answer, and where nobody knows, nothing is promised.
 */
async function isKept(
  deps: RefinementDeps,
  { db }: Pick<Call<unknown, unknown>, 'db'>,
  proposalId: string,
): Promise<boolean> {
  try {
    return await deps.gate(() => keepStart(db, { proposalId, transitionId: deps.ids() }));
  } catch (error) {
    throw error instanceof AppError ? unconfirmed(error) : error;
  }
}

/** The answer that the key was given before. It starts nothing, so neither the runtime's absence nor a limit stands in its way. */
async function repeated(deps: RefinementDeps, call: Call<unknown, unknown>): Promise<Answer | null> {
  const { key } = call;
  if (key === null) return null;
  const { userId } = call.identity;
  const found = await deps.gate(() => findProposalKey(call.db, { ...key, userId }));
  switch (found.kind) {
    case 'free':
      return null;
    case 'mismatch':
      throw keyMismatch();
    case 'in_flight':
      throw keyInFlight();
    case 'named': {
      const { proposalId, answered } = found;
      if (!answered && !(await isKept(deps, call, proposalId))) return null;
      const proposal = await deps.gate(() => findProposalFor(call.db, { proposalId, userId }));
      if (proposal === null) throw noWorkflow();
      return started({ ...proposal.row, proposalId });
    }
  }
}

function started(row: Pick<ThreadRow, 'proposalId' | 'threadId' | 'createdAt'>): Answer {
  return {
    status: 202,
    body: {
      proposal_id: row.proposalId,
      thread_id: row.threadId,
      // A repeat gets the first answer, whatever has become of the run since.
      status: 'processing',
      websocket_url: `/api/ws/refinements/${row.threadId}`,
      created_at: row.createdAt,
    },
    headers: { Location: `/api/proposals/${row.proposalId}` },
  };
}

function runtimeAway(retryAfterSeconds: number): AppError {
  return new AppError(
    'runtime_unavailable',
    'The agent runtime cannot be reached at the moment; nothing was started.',
    {
      retryAfterSeconds,
    },
  );
}
