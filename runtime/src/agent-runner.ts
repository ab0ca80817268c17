/**
 * The port between the service (queue, log, API) and whatever runs the agents.
 *
 * The service owns the run's row, its numbers and its epoch; the runner owns the agents and their
 * checkpoints. Everything behind this port is replaceable.
 */

/** One file on the wire: `content` is its lines, joined by `\n`. `null` = a given file that the run deleted. */
export interface WireFile {
  content: string[];
  created_at: string;
  modified_at: string;
}
export type WireFiles = Record<string, WireFile | null>;

/** What invoke was given, as it is stored in the run's row. */
export interface RunInput {
  agent_definition: Record<string, unknown>;
  input_payload: {
    messages: { role: string; content: string }[];
    files?: Record<string, { content: string[]; created_at?: string; modified_at?: string }>;
    [key: string]: unknown;
  };
}

/** One event of a run, without its number. The service numbers, logs and sends it. Never `error` or `end`. */
export interface RunEvent {
  event_type: 'on_llm_stream' | 'on_state_update' | 'on_tool_start' | 'on_tool_end';
  data: Record<string, unknown>;
}

/** How a run stopped. `interrupted`: not failed, resumes later (PostgreSQL away, drained for a restart). */
export type RunOutcome =
  | { status: 'completed'; files: WireFiles }
  | { status: 'failed'; files: WireFiles; error: { code: string; message: string; retryable: boolean } }
  | { status: 'interrupted'; reason: 'store_unavailable' | 'drained' };

export interface RunHandle {
  /** Resolves when the loop has ended; never rejects. */
  done: Promise<RunOutcome>;
  /** Aborts the run; `done` resolves soon after, as `failed` with the given code (`cancelled`, `stalled`, `deadline_exceeded`, …). */
  abort(error: { code: string; message: string; retryable: boolean }): void;
  /** Stops at the next step boundary; `done` resolves as `interrupted` / `drained`. */
  drain(): void;
  /** A message from the stream's reader: heard before the next model turn, visible in the following state update. */
  message(content: string): void;
}

export interface AgentRunner {
  /** Checks a definition and the configured model before anything is written; throws an error with `code` and `message`. */
  check(input: RunInput): void;
  /**
   * Runs (or, where a checkpoint exists, resumes) a thread. `onEvent` is called synchronously for each
   * event; the first event of a call is always the whole state (the checkpoint's, else the given files)
   * when `resumed` is true.
   */
  run(
    threadId: string,
    input: RunInput,
    onEvent: (event: RunEvent) => void,
    options: { resumed: boolean },
  ): RunHandle;
  /**
   * The state of the thread's last checkpoint, without running anything; null where there is none.
   * With the files that the run was `given`, those that it deleted are `null` in the answer.
   */
  read(
    threadId: string,
    given?: RunInput['input_payload']['files'],
  ): Promise<{ files: WireFiles; todos: unknown[]; messages: unknown[] } | null>;
  /** Deletes every checkpoint of the thread and refuses later writes to it; true where something was there. */
  purge(threadId: string): Promise<boolean>;
}
