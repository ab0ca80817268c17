import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentRunner, RunEvent, RunInput, RunOutcome, WireFiles } from '../../src/agent-runner.js';

/** What a script sees of the run that it plays. */
interface ScriptStage {
  threadId: string;
  input: RunInput;
  resumed: boolean;
  messages: readonly string[];
  emit(event: RunEvent): void;
  token(content: string): void;
  files(files: WireFiles): void;
  /** Rejects as soon as the run is aborted or drained. */
  wait(ms: number): Promise<void>;
  /** Waits until a reader has sent a message: it is there by then. */
  spokenTo(): Promise<void>;
}

export type Script = (stage: ScriptStage) => Promise<RunOutcome>;

type Failed = Extract<RunOutcome, { status: 'failed' }>;
type Ending = Failed['error'] | 'drained';

export interface ScriptedRunner extends AgentRunner {
  /** Every call of `run`, in order. */
  readonly started: { threadId: string; resumed: boolean }[];
  readonly purged: string[];
  /** Called at the start of each `purge`. */
  onPurge: (threadId: string) => Promise<void>;
  onRead: () => void;
  onCheck: (input: RunInput) => void;
}

export const file = (...content: string[]) => ({
  content,
  created_at: '2026-01-01T00:00:00.000Z',
  modified_at: '2026-01-01T00:00:00.000Z',
});

/** Implements the port with a script instead of agents; its checkpoints live as long as the object. */
export function createScriptedRunner(script: Script): ScriptedRunner {
  const checkpoints = new Map<string, WireFiles>();
  const gone = new Set<string>();
  const runner: ScriptedRunner = {
    started: [],
    purged: [],
    onPurge: async () => {},
    onRead: () => {},
    onCheck: () => {},
    check: (input) => runner.onCheck(input),
    run(threadId, input, onEvent, { resumed }) {
      runner.started.push({ threadId, resumed });
      const messages: string[] = [];
      const abort = new AbortController();
      let ending: Ending | null = null;
      const end = (how: Ending): void => {
        ending ??= how;
        abort.abort();
      };
      const stage: ScriptStage = {
        threadId,
        input,
        resumed,
        messages,
        emit: onEvent,
        token: (content) => onEvent({ event_type: 'on_llm_stream', data: { content } }),
        files(files) {
          if (!gone.has(threadId)) checkpoints.set(threadId, files);
          onEvent({ event_type: 'on_state_update', data: { files, todos: [], messages: [...messages] } });
        },
        wait: (ms) => sleep(ms, undefined, { signal: abort.signal }),
        async spokenTo() {
          while (messages.length === 0) await stage.wait(5);
        },
      };
      const play = async (): Promise<RunOutcome> => {
        await null;
        try {
          if (resumed) stage.files(checkpoints.get(threadId) ?? {});
          return await script(stage);
        } catch (thrown) {
          if (ending === 'drained') return { status: 'interrupted', reason: 'drained' };
          const error = ending ?? { code: 'runtime_error', message: String(thrown), retryable: true };
          return { status: 'failed', files: checkpoints.get(threadId) ?? {}, error };
        }
      };
      return {
        done: play(),
        abort: end,
        drain: () => end('drained'),
        message: (content) => messages.push(content),
      };
    },
    async read(threadId) {
      runner.onRead();
      const files = checkpoints.get(threadId);
      return files === undefined
        ? null
        : { files, todos: [], messages: [{ role: 'assistant', content: 'read' }] };
    },
    async purge(threadId) {
      await runner.onPurge(threadId);
      gone.add(threadId);
      runner.purged.push(threadId);
      return checkpoints.delete(threadId);
    },
  };
  return runner;
}

/** Three tokens, one file, done. */
export const briefScript: Script = async ({ token, files }) => {
  for (const word of ['one', 'two', 'three']) token(word);
  const result = { '/a.md': file('hello', '') };
  files(result);
  return { status: 'completed', files: result };
};

/** Says one token and a file, then waits to be ended. */
export const endlessScript: Script = async ({ token, files, wait }) => {
  token('begun');
  files({ '/begun.md': file('begun') });
  await wait(600_000);
  return { status: 'completed', files: {} };
};
