import './library-settings.js';
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import type { BaseCheckpointSaver, RunControl } from '@langchain/langgraph';
import { createDeepAgent, type FilesystemPermission, StateBackend } from 'deepagents';
import { type AgentMiddleware, todoListMiddleware, toolErrorMiddleware } from 'langchain';

import type { AgentSpec, AgentTeam } from './agent-definition.js';
import { StoreError } from './checkpoints.js';
import { createPathGuard } from './file-rules.js';
import { createLibraryMiddleware } from './library-middleware.js';
import { createModelCallLimit } from './model-call-limit.js';
import type { StreamItem } from './run-events.js';
import { causesOf } from './run-failure.js';
import type { GraphInput } from './run-input.js';
import { createSubagentFiles } from './subagent-files.js';
import { createToolEvents } from './tool-events.js';
import { type ToolRegistry, toolsOf } from './tool-registry.js';

/** Model calls of one agent in one run; several times what a large change needs, and below the graph's own limit. */
const modelCallLimit = 60;

/** Any rule makes the library check paths (absolute, no `..`); reading is allowed everywhere. */
const permissions: FilesystemPermission[] = [{ operations: ['read', 'write'], paths: ['/**'] }];

/** The library's agent, as narrow as it is used here. */
export interface StreamingAgent {
  stream(input: GraphInput | null, options: StreamOptions): Promise<AsyncIterable<StreamItem>>;
}

interface StreamOptions {
  streamMode: ['messages', 'values', 'custom'];
  subgraphs: true;
  signal: AbortSignal;
  control: RunControl;
  recursionLimit: number;
  configurable: { thread_id: string };
}

export interface BuildDeps {
  /** The model of one agent. */
  modelFor(spec: AgentSpec): Promise<BaseChatModel>;
  tools: ToolRegistry;
  checkpointer: BaseCheckpointSaver;
  /** Goes into the main agent alone. */
  inbox: AgentMiddleware;
}

/** Builds the deep agent of a team, for any number of runs: about 10 ms of work once the packages are warm. */
export async function buildAgent(team: AgentTeam, deps: BuildDeps): Promise<StreamingAgent> {
  const { main } = team;
  const model = await deps.modelFor(main);
  const tools = toolsOf(main.tools, team.toolNotes, deps.tools);
  const backend = new StateBackend({ fileFormat: 'v1' });
  const middlewareOf = (agent: string) => [
    ...createLibraryMiddleware({ backend, permissions }),
    ...commonMiddleware(agent),
  ];
  const subagents = await Promise.all(
    withGeneralPurpose(team).map(async (spec) => ({
      name: spec.slug,
      description: spec.description,
      systemPrompt: promptOf(spec),
      model: spec.slug === generalPurpose ? model : await deps.modelFor(spec),
      tools: spec.slug === generalPurpose ? tools : toolsOf(spec.tools, team.toolNotes, deps.tools),
      middleware: middlewareOf(spec.slug),
    })),
  );
  const agent: unknown = createDeepAgent({
    name: main.slug,
    model,
    systemPrompt: promptOf(main),
    tools,
    subagents,
    middleware: [
      todoListMiddleware() as unknown as AgentMiddleware,
      ...middlewareOf(main.slug),
      createSubagentFiles(),
      deps.inbox,
    ],
    backend,
    permissions,
    checkpointer: deps.checkpointer,
  });
  return agent as StreamingAgent;
}

const generalPurpose = 'general-purpose';

/** The library adds this sub-agent by itself, but without our middleware: a throwing tool would end the run. */
function withGeneralPurpose(team: AgentTeam): AgentSpec[] {
  if (team.specialists.some(({ slug }) => slug === generalPurpose)) return team.specialists;
  const spec: AgentSpec = {
    slug: generalPurpose,
    displayName: 'General-purpose agent',
    description: 'For any self-contained piece of work that no other agent is made for.',
    systemPrompt: 'Do the task that you are given with the tools that you have, and report what you did.',
    tools: [],
    model: null,
  };
  return [...team.specialists, spec];
}

function promptOf(spec: AgentSpec): string {
  return spec.systemPrompt || `You are ${spec.displayName}. ${spec.description}`;
}

/** The outermost first: events are told of refused and failed calls too. */
function commonMiddleware(agent: string): AgentMiddleware[] {
  return [
    createToolEvents(agent),
    // Only the kind of the error: its text may hold what the model, and so the user, must not see. A task whose
    // sub-agent could not store its state is no failed tool: the run is interrupted, and resumes with that task.
    toolErrorMiddleware({
      onError: (error, { toolCall }) =>
        isOfTheStore(error) ? undefined : `Error: the tool "${toolCall.name}" failed (${nameOf(error)}).`,
    }) as AgentMiddleware,
    createPathGuard(),
    createModelCallLimit(modelCallLimit),
  ];
}

const isOfTheStore = (error: unknown): boolean => causesOf(error).some((one) => one instanceof StoreError);

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : 'Error';
}
