import './library-settings.js';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RunControl } from '@langchain/langgraph';
import type pg from 'pg';

import type { AgentRunner, RunEvent, RunHandle, RunInput, RunOutcome } from '../agent-runner.js';
import { checkModel, createModelSource } from '../models/chat-models.js';
import type { ModelSetting } from '../models/model-setting.js';
import { createAgentCache } from './agent-cache.js';
import { type AgentTeam, teamOf } from './agent-definition.js';
import { buildAgent } from './build-agent.js';
import { CheckpointStore } from './checkpoints.js';
import { createReaderInboxes } from './reader-inbox.js';
import { runEventOf } from './run-events.js';
import { stopOf } from './run-failure.js';
import { givenPathsOf, graphInputOf } from './run-input.js';
import { type RunFailure, RunnerError } from './runner-error.js';
import { createStateView, filesOf, type GraphState, stateDataOf, withDeleted } from './state-view.js';
import type { ToolRegistry } from './tool-registry.js';

/** Steps of a graph; a turn with its tools takes about three. */
const recursionLimit = 200;

/** After so many items of one stream in a row, other runs and sockets get their turn of the loop. */
const itemsPerTurn = 64;

/** How long the end of a run waits for writes that trail behind it, in milliseconds. */
const trailingWrites = 2_000;

/** What the runner logs with; pino fits. */
interface RunnerLogger {
  warn(fields: Record<string, unknown>, message: string): void;
}

export interface DeepAgentRunnerDeps {
  /** Needs an `error` listener of its own: a lost idle connection otherwise ends the process. */
  pool: pg.Pool;
  /** Schema of the checkpoint tables; {@link setupCheckpoints} makes them. */
  schema: string;
  model: ModelSetting;
  tools?: ToolRegistry;
  logger?: RunnerLogger;
  /** Milliseconds since the epoch. */
  clock?: () => number;
}

/** Runs deep agents with their checkpoints in PostgreSQL. */
export function createDeepAgentRunner(deps: DeepAgentRunnerDeps): AgentRunner {
  const { pool, schema, model, tools = {}, logger, clock = Date.now } = deps;
  const store = new CheckpointStore(pool, schema);
  const models = createModelSource(model);
  const inboxes = createReaderInboxes();
  const running = new Set<string>();
  const agents = createAgentCache(async (definition) => {
    const team = teamOf(definition);
    const agent = await buildAgent(team, {
      modelFor: (spec) => models(spec.model),
      tools,
      checkpointer: store,
      inbox: inboxes.middleware,
    });
    return { agent, names: displayNamesOf(team) };
  });

  async function stream(
    threadId: string,
    input: RunInput,
    tell: (event: RunEvent) => void,
    run: { signal: AbortSignal; control: RunControl; resumed: boolean },
  ): Promise<RunOutcome> {
    const given = givenPathsOf(input);
    const view = createStateView(given);
    try {
      const graphInput = graphInputOf(input, new Date(clock()).toISOString());
      const config = { configurable: { thread_id: threadId } };
      const checkpoint = run.resumed ? await store.getTuple(config) : undefined;
      const state: GraphState = checkpoint ? stateIn(checkpoint.checkpoint.channel_values) : graphInput;
      // The first event of every run is its whole state: a resumed run's reader has nothing else to begin with.
      const first = view.update([], state);
      if (first !== null) tell({ event_type: 'on_state_update', data: first });

      // The answer to invoke leaves before the work begins.
      await nextTurn();
      const { agent, names } = await agents.get(input.agent_definition);
      run.signal.throwIfAborted();
      const items = await agent.stream(checkpoint ? null : graphInput, {
        ...config,
        streamMode: ['messages', 'values', 'custom'],
        subgraphs: true,
        signal: run.signal,
        control: run.control,
        recursionLimit,
      });
      let count = 0;
      for await (const item of items) {
        const event = runEventOf(item, view, names);
        if (event !== null) tell(event);
        count += 1;
        if (count % itemsPerTurn === 0) await nextTurn();
      }
      return { status: 'completed', files: view.files() };
    } catch (thrown) {
      if (run.signal.aborted && run.signal.reason instanceof RunAborted) {
        return { status: 'failed', files: view.files(), error: run.signal.reason.failure };
      }
      const stop = stopOf(thrown);
      // Whatever went wrong shall not be met again by the next run.
      agents.forget(input.agent_definition);
      logger?.warn({ thread_id: threadId, err: thrown, stop }, 'run stopped');
      return stop.status === 'failed' ? { ...stop, files: view.files() } : stop;
    }
  }

  return {
    check(input) {
      const team = teamOf(input.agent_definition);
      graphInputOf(input, '');
      checkModel(model, [team.main, ...team.specialists]);
    },

    run(threadId, input, onEvent, { resumed }): RunHandle {
      if (running.has(threadId)) throw new RunnerError('already_running', 'This thread is running already.');
      running.add(threadId);
      const aborter = new AbortController();
      const control = new RunControl();
      const inbox = inboxes.open(threadId);
      if (!resumed) store.beginFresh(threadId);
      const tell = (event: RunEvent) => {
        try {
          onEvent(event);
        } catch (err) {
          logger?.warn({ thread_id: threadId, err }, 'an event could not be handed on');
        }
      };
      const done = stream(threadId, input, tell, { signal: aborter.signal, control, resumed }).finally(
        async () => {
          inbox.close();
          await Promise.race([store.settled(threadId), pause(trailingWrites)]);
          store.endFresh(threadId);
          running.delete(threadId);
        },
      );
      return {
        done,
        abort: (error) => aborter.abort(new RunAborted(error)),
        drain: () => control.requestDrain('stopping'),
        message: (content) => inbox.put(content),
      };
    },

    async read(threadId, given = {}) {
      const tuple = await store.getTuple({ configurable: { thread_id: threadId } });
      if (tuple === undefined) return null;
      const state = stateIn(tuple.checkpoint.channel_values);
      const { files, todos, messages } = stateDataOf(
        withDeleted(filesOf(state.files), Object.keys(given)),
        state,
      );
      return { files, todos, messages };
    },

    purge: (threadId) => store.purge(threadId),
  };
}

/** The reason of an abort that somebody asked for. */
class RunAborted extends Error {
  readonly failure: RunFailure;

  constructor(failure: RunFailure) {
    super(failure.message);
    this.name = 'AbortError';
    this.failure = failure;
  }
}

function stateIn(values: Record<string, unknown>): GraphState {
  return values as GraphState;
}

function displayNamesOf(team: AgentTeam): Map<string, string> {
  return new Map([team.main, ...team.specialists].map(({ slug, displayName }) => [slug, displayName]));
}

/** Does not keep the process alive. */
function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds).unref();
  });
}
