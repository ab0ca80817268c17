import '../../agent/library-settings.js';
import { AIMessage, type BaseMessage } from '@langchain/core/messages';

import { directivesOf } from './directives.js';
import type { Turn } from './script.js';

const opening = 'Make these edits exactly as they are:\n```json\n';
const closing = '\n```';

/** The description of a task that hands edits to a sub-agent. */
export function taskWithEdits(calls: Turn['calls']): string {
  return `${opening}${JSON.stringify(calls)}${closing}`;
}

/** A sub-agent's script: it makes the edits that its task holds, if any, and reports. */
export function subagentTurnOf(messages: readonly BaseMessage[]): Turn {
  const task = messages.find((message) => message.getType() === 'human')?.text ?? '';
  const turns = messages.filter((message) => AIMessage.isInstance(message)).length;
  const calls = callsIn(task);
  const { directives } = directivesOf(task);
  const turn = { key: task, ...(directives.slow === null ? {} : { chunkDelayMs: directives.slow }) };
  if (calls.length > 0 && turns === 0) return { ...turn, text: 'Making the edits of the task.', calls };
  const paths = calls.map(({ args }) => String(args.file_path)).join(', ');
  const report =
    calls.length > 0 ? `The edits are made: ${paths}.` : `Nothing stands against it. ${firstLine(task)}`;
  return { ...turn, text: `${report} (This is a script.)`, calls: [] };
}

function callsIn(task: string): Turn['calls'] {
  if (!task.startsWith(opening) || !task.endsWith(closing)) return [];
  try {
    return JSON.parse(task.slice(opening.length, -closing.length)) as Turn['calls'];
  } catch {
    // Somebody else's task that happens to begin like ours: it is only reported on.
    return [];
  }
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0]?.slice(0, 300) ?? '';
}
