import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import {
  approved,
  type CreateWorkflowRequest,
  draft,
  pageOf,
  problem,
  proposal,
  proposalDiff,
  refinementStarted,
  rejected,
  type StartRefinementRequest,
  version,
  workflow,
} from '@ide-orchestrator/protocol';

/** What is used of a schema; keeps this file from caring which library made it. */
interface Schema<T> {
  parse(value: unknown): T;
}

/** An answer of the server that is not the one asked for. The message is for the person at the terminal. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

const errorOf = async (response: Response): Promise<ApiError> => {
  const parsed = problem.safeParse(await response.json().catch(() => undefined));
  if (!parsed.success)
    return new ApiError(response.status, 'unknown', `The server answered ${response.status}`);
  const { code, title, detail, errors, conflicts } = parsed.data;
  const more = [...(errors ?? []).map((fault) => `${fault.path}: ${fault.message}`), ...(conflicts ?? [])];
  return new ApiError(response.status, code, [`${detail || title} (${code})`, ...more].join('\n  '));
};

/**
 * The calls of the REST API that a refinement needs.
 *
 * A call that got no answer is repeated for `retryForMs`: reads change nothing, and everything else carries an
 * idempotency key. Rejects with ApiError on any other answer, with the network's error when time is up.
 */
export const createApi = (deps: { url: string; token: string; retryForMs?: number }) => {
  const retryForMs = deps.retryForMs ?? 30_000;

  const call = async <T>(method: string, path: string, schema: Schema<T>, body?: unknown): Promise<T> => {
    const headers: Record<string, string> = { authorization: `Bearer ${deps.token}` };
    if (method !== 'GET') headers['idempotency-key'] = randomUUID();
    if (body !== undefined) headers['content-type'] = 'application/json';
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const deadline = performance.now() + retryForMs;
    for (let delayMs = 200; ; delayMs = Math.min(delayMs * 2, 3_000)) {
      let response: Response;
      try {
        response = await fetch(new URL(path, deps.url), { ...init, signal: AbortSignal.timeout(30_000) });
      } catch (error) {
        if (performance.now() + delayMs > deadline) {
          throw new Error(`No answer from ${deps.url}; is the server running?`, { cause: error });
        }
        await wait(delayMs);
        continue;
      }
      if (response.ok) return schema.parse(await response.json());
      throw await errorOf(response);
    }
  };

  return {
    listWorkflows: () => call('GET', '/api/workflows?limit=1', pageOf(workflow)),
    getWorkflow: (id: string) => call('GET', `/api/workflows/${encodeURIComponent(id)}`, workflow),
    createWorkflow: (body: CreateWorkflowRequest) => call('POST', '/api/workflows', workflow, body),
    getDraft: (workflowId: string) => call('GET', `/api/workflows/${workflowId}/draft`, draft),
    startRefinement: (workflowId: string, body: StartRefinementRequest) =>
      call('POST', `/api/workflows/${workflowId}/refinements`, refinementStarted, body),
    getProposal: (id: string) => call('GET', `/api/proposals/${id}`, proposal),
    getDiff: (id: string) => call('GET', `/api/proposals/${id}/diff`, proposalDiff),
    approve: (id: string) => call('POST', `/api/proposals/${id}/approve`, approved, {}),
    reject: (id: string) => call('POST', `/api/proposals/${id}/reject`, rejected, {}),
    publish: (workflowId: string) => call('POST', `/api/workflows/${workflowId}/versions`, version),
  };
};

export type Api = ReturnType<typeof createApi>;
