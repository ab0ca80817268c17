import type { InvokeRequest } from '@ide-orchestrator/protocol';

/** What every invoke of a proposal sends, whatever its job: stored with the proposal before the first. */
export type RunInput = Omit<InvokeRequest, 'trace_id' | 'job_id'>;

export interface Wish {
  userPrompt: string;
  contextFilePath: string | null;
  contextSelection: string | null;
}

/** The runtime's input from a person's wish and the draft that it is about: one user message, the files as lines. */
export function runInputOf(wish: Wish, baseFiles: Readonly<Record<string, string>>, now: string): RunInput {
  const parts = [wish.userPrompt];
  if (wish.contextFilePath !== null) parts.push(`## Context file\n\n${wish.contextFilePath}`);
  if (wish.contextSelection !== null) parts.push(`## Selection\n\n${wish.contextSelection}`);
  const files = Object.entries(baseFiles).map(([path, text]) => {
    return [path, { content: text.split('\n'), created_at: now, modified_at: now }] as const;
  });
  return {
    agent_definition: {},
    input_payload: {
      messages: [{ role: 'user', content: parts.join('\n\n') }],
      files: Object.fromEntries(files),
    },
  };
}
