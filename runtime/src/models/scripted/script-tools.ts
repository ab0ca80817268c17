import type { BindToolsInput } from '@langchain/core/language_models/chat_models';

/** What the script knows about the tools that it was given. */
export interface ScriptTools {
  names: ReadonlySet<string>;
  /** The agents that the `task` tool delegates to, in the order of the definition. */
  subagents: readonly string[];
}

/** Reads the tools' names, and from the `task` tool's own description whom it can delegate to. */
export function scriptToolsOf(tools: readonly BindToolsInput[]): ScriptTools {
  const named = tools.flatMap((tool) =>
    'name' in tool && typeof tool.name === 'string' ? [{ name: tool.name, tool }] : [],
  );
  const task = named.find(({ name }) => name === 'task')?.tool;
  const description = task && 'description' in task ? String(task.description) : '';
  const subagents = [...description.matchAll(/^\s*- ([a-z0-9-]+): /gm)].map((match) => match[1] ?? '');
  return { names: new Set(named.map(({ name }) => name)), subagents };
}
