import './library-settings.js';
import {
  createFilesystemMiddleware,
  createPatchToolCallsMiddleware,
  type FilesystemPermission,
  type StateBackend,
} from 'deepagents';
import type { AgentMiddleware } from 'langchain';

/**
 * Two of the library's own, which take the place of those that it adds by itself. They look at the conversation before
 * an agent's first turn, and each look is a step of the graph with a checkpoint of its own, in every sub-agent too. One
 * moves a message of more than 200,000 characters to a file; a prompt is shorter. The other answers tool calls
 * that nobody answered, and does so before each turn of the model again.
 */
export function createLibraryMiddleware(options: {
  backend: StateBackend;
  permissions: FilesystemPermission[];
}): AgentMiddleware[] {
  const files = createFilesystemMiddleware({ ...options, humanMessageTokenLimitBeforeEvict: null });
  return [files, createPatchToolCallsMiddleware()].map((middleware) => {
    const { beforeAgent: _look, ...rest } = middleware as AgentMiddleware;
    return rest;
  });
}
