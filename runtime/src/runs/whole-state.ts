import type { AgentRunner, RunInput, WireFile, WireFiles } from '../agent-runner.js';

/** `data` of an `on_state_update` that stands at the head of a log that is begun anew. */
export interface WholeState {
  files: WireFiles;
  todos: unknown[];
  messages: unknown[];
}

/** The given files in the shape of the wire; times that were not given are the epoch's, not a clock's. */
export function givenFiles(input: RunInput): Record<string, WireFile> {
  const unknownTime = '1970-01-01T00:00:00.000Z';
  return Object.fromEntries(
    Object.entries(input.input_payload.files ?? {}).map(([path, file]) => [
      path,
      {
        content: file.content,
        created_at: file.created_at ?? unknownTime,
        modified_at: file.modified_at ?? unknownTime,
      },
    ]),
  );
}

/** The state of the last checkpoint, else what the run was given. */
export async function wholeStateOf(
  { runner }: { runner: AgentRunner },
  threadId: string,
  input: RunInput,
): Promise<WholeState> {
  const checkpoint = await runner.read(threadId, input.input_payload.files);
  return checkpoint ?? { files: givenFiles(input), todos: [], messages: input.input_payload.messages };
}
