import './library-settings.js';
import { isDeepStrictEqual } from 'node:util';
import { Command, getCurrentTaskInput, isCommand } from '@langchain/langgraph';
import { type AgentMiddleware, createMiddleware } from 'langchain';

type Files = Record<string, unknown>;

/**
 * Lets a sub-agent bring back what it has changed, and nothing else. The library returns all of its files:
 * merged one after the other, the old copies of one sub-agent overwrite what another that worked at the
 * same time has edited, and a deletion is lost because the file is merely missing.
 */
export function createSubagentFiles(): AgentMiddleware {
  return createMiddleware({
    name: 'subagent-files',
    wrapToolCall: async (request, handler) => {
      const result = await handler(request);
      if (request.toolCall.name !== 'task' || !isCommand(result)) return result;
      const update = result.update as { files?: Files } | undefined;
      if (update?.files === undefined) return result;
      // The request's own state holds only what this middleware declares; the task's input is the whole state.
      const before = getCurrentTaskInput<{ files?: Files }>().files ?? {};
      return new Command({ update: { ...update, files: changedFiles(before, update.files) } });
    },
  }) as AgentMiddleware;
}

/** The files of `after` that are new or different, and `null` for those that are gone. */
export function changedFiles(before: Files, after: Files): Files {
  const changed = Object.entries(after).filter(([path, file]) => !isDeepStrictEqual(file, before[path]));
  const gone = Object.keys(before).filter((path) => !(path in after));
  return Object.fromEntries([...changed, ...gone.map((path) => [path, null] as const)]);
}
