import './library-settings.js';
import { ToolMessage } from '@langchain/core/messages';
import { type AgentMiddleware, createMiddleware } from 'langchain';

/** Longest path of a file, in characters; the contract's own limit. */
const longestPath = 512;

/** Folders where the library keeps its own notes (long tool results, summarised history): never files of a run. */
const internalFolders = ['/large_tool_results/', '/conversation_history/'];

/** The library's own entries: not shown, not returned, not to be written by a model. */
export function isInternalPath(path: string): boolean {
  return internalFolders.some((folder) => path.startsWith(folder));
}

/**
 * Why a path may not be a file of a run, or null where it may. Only one spelling of each path is
 * accepted, so that one file cannot appear under two names.
 */
export function pathFault(path: string): string | null {
  if (!path.startsWith('/')) return 'it must begin with "/"';
  if (path.length > longestPath) return `it is longer than ${longestPath} characters`;
  if (/[\p{Cc}\\]/u.test(path)) return 'it holds a backslash or a control character';
  const segments = path.slice(1).split('/');
  if (segments.some((segment) => segment === '' || segment === '.' || segment === '..' || segment === '~')) {
    return 'it holds an empty, ".", ".." or "~" segment';
  }
  return null;
}

const writingTools = new Set(['write_file', 'edit_file', 'delete']);

/**
 * Refuses unsafe paths as a tool result that the model can read. The library's permissions refuse
 * relative and `..` paths, but accept `//a` and `/a/./b` as further names of one file.
 */
export function createPathGuard(): AgentMiddleware {
  return createMiddleware({
    name: 'path-guard',
    wrapToolCall: (request, handler) => {
      const { name, args, id } = request.toolCall;
      if (!writingTools.has(name)) return handler(request);
      const path = (args as { file_path?: unknown }).file_path;
      if (typeof path !== 'string') return handler(request);
      const fault = isInternalPath(path) ? 'the folder is reserved' : pathFault(path);
      if (fault === null) return handler(request);
      return new ToolMessage({
        content: `Error: the path ${JSON.stringify(path.slice(0, longestPath))} is refused: ${fault}.`,
        tool_call_id: id ?? '',
        name,
        status: 'error',
      });
    },
  }) as AgentMiddleware;
}
