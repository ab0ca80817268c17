import './library-settings.js';
import { type StructuredTool, tool } from '@langchain/core/tools';

import type { ToolNote } from './agent-definition.js';

/** Tools that an agent definition may name, by their name there. */
export type ToolRegistry = Readonly<Record<string, StructuredTool>>;

/** What every deep agent has anyway; a definition that names one of these asks for nothing more. */
const builtInTools = new Set([
  'ls',
  'read_file',
  'write_file',
  'edit_file',
  'delete',
  'glob',
  'grep',
  'execute',
  'task',
  'write_todos',
]);

const stubSchema = {
  type: 'object',
  properties: { input: { type: 'string', description: 'what the tool is asked for' } },
  additionalProperties: true,
} as const;

/**
 * The tools of one agent. Scripts inside a definition are never executed: a name is looked up in the
 * registry, and an unknown one becomes a tool that says it is not available, so that the model can plan
 * around it instead of failing.
 */
export function toolsOf(
  names: readonly string[],
  notes: ReadonlyMap<string, ToolNote>,
  registry: ToolRegistry,
): StructuredTool[] {
  return [...new Set(names)]
    .filter((name) => !builtInTools.has(name))
    .map((name) => (Object.hasOwn(registry, name) && registry[name]) || stubOf(name, notes.get(name)));
}

function stubOf(name: string, note: ToolNote | undefined): StructuredTool {
  return tool(async () => `The tool "${name}" is not available in this runtime. Go on without it.`, {
    name,
    description: `${note?.description ?? name} (not available in this runtime)`,
    schema: stubSchema,
  });
}
