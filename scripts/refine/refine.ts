import type { Proposal, Workflow } from '@ide-orchestrator/protocol';
import { type Api, ApiError, createApi } from './api.js';
import { diffText } from './diff-text.js';
import { type FollowDeps, followRun } from './follow-run.js';
import { createRunView, paint, printable, type Terminal } from './run-view.js';
import { sampleWorkflow } from './sample-specification.js';

export interface RefineOptions {
  prompt: string;
  url: string;
  token: string;
  workflowId?: string;
  approve: boolean;
  publish: boolean;
}

export interface RefineDeps {
  terminal: Terminal;
  /** Asks the person; undefined where nobody answers. */
  ask: (question: string) => Promise<string | undefined>;
  retryForMs?: number;
  stream?: Pick<FollowDeps, 'backoffMs' | 'giveUpAfterMs'>;
}

const findWorkflow = async (api: Api, id: string | undefined): Promise<Workflow & { made?: boolean }> => {
  if (id !== undefined) return api.getWorkflow(id);
  const [first] = (await api.listWorkflows()).items;
  return first ?? { ...(await api.createWorkflow(sampleWorkflow)), made: true };
};

/** The draft that the run starts from, as text; a workflow that has only versions, or nothing, has none yet. */
const draftFilesOf = async (api: Api, workflowId: string): Promise<Record<string, string>> => {
  try {
    const { files } = await api.getDraft(workflowId);
    return Object.fromEntries(Object.entries(files).map(([path, file]) => [path, file.content]));
  } catch (error) {
    if (error instanceof ApiError && error.code === 'draft_not_found') return {};
    throw error;
  }
};

type Decision = 'approve' | 'reject' | 'later';

const decide = async (options: RefineOptions, deps: RefineDeps): Promise<Decision> => {
  if (options.approve) return 'approve';
  for (;;) {
    const answer = (await deps.ask('Approve? [y]es, [n]o (discard), [l]ater: '))?.trim().toLowerCase();
    if (answer === 'y' || answer === 'yes') return 'approve';
    if (answer === 'n' || answer === 'no') return 'reject';
    if (answer === undefined || answer === 'l' || answer === 'later') return 'later';
  }
};

const tellFailure = (terminal: Terminal, proposal: Proposal): void => {
  const why =
    proposal.error === null ? proposal.status : `${proposal.error.message} (${proposal.error.code})`;
  terminal.write(`${paint(terminal, 'red', `The refinement failed: ${printable(why)}`)}\n`);
};

/**
 * One refinement from the prompt to the decision. Resolves with true where everything that was asked for was done,
 * with false where the run failed; rejects on anything unexpected.
 */
export const refine = async (options: RefineOptions, deps: RefineDeps): Promise<boolean> => {
  const { terminal } = deps;
  const say = (text: string): void => terminal.write(`${text}\n`);
  const { url, token } = options;
  const api = createApi({
    url,
    token,
    ...(deps.retryForMs === undefined ? {} : { retryForMs: deps.retryForMs }),
  });

  const workflow = await findWorkflow(api, options.workflowId);
  say(
    `${workflow.made ? 'Made the sample workflow' : 'Workflow'} ${printable(workflow.name)} (${workflow.id})`,
  );
  const view = createRunView(terminal, await draftFilesOf(api, workflow.id));
  const started = await api.startRefinement(workflow.id, { user_prompt: options.prompt });
  say(`Refinement ${started.proposal_id} started`);
  await followRun({
    url,
    token,
    path: started.websocket_url,
    onFrame: view.show,
    onLost: (reason) => view.note(`connection lost (${printable(reason)}), coming back`),
    ...deps.stream,
  });

  const proposal = await api.getProposal(started.proposal_id);
  for (const warning of proposal.warnings) view.note(`${warning.code}: ${printable(warning.message)}`);
  if (proposal.status === 'failed' || proposal.status === 'processing') {
    tellFailure(terminal, proposal);
    return false;
  }
  say(`\n${diffText(terminal, await api.getDiff(proposal.id))}\n`);

  const decision = await decide(options, deps);
  if (decision === 'later') {
    say(
      `Not decided yet: approve it with POST ${url.replace(/\/$/, '')}/api/proposals/${proposal.id}/approve`,
    );
    return !options.publish;
  }
  if (decision === 'reject') {
    await api.reject(proposal.id);
    say('rejected');
    return !options.publish;
  }
  const { files_applied, draft_revision } = await api.approve(proposal.id);
  say(paint(terminal, 'green', `approved: ${files_applied} files applied, draft revision ${draft_revision}`));
  if (options.publish) {
    const { version_number } = await api.publish(workflow.id);
    say(paint(terminal, 'green', `published version ${version_number}`));
  }
  return true;
};
