import './library-settings.js';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AIMessage } from '@langchain/core/messages';
import { type AgentMiddleware, createMiddleware } from 'langchain';

import { RunnerError } from './runner-error.js';

/**
 * Fails the run at the model call after the `limit`-th of one agent. The library's own middleware for this
 * adds two steps, and so two checkpoints, to every turn; here the conversation itself is the counter.
 */
export function createModelCallLimit(limit: number): AgentMiddleware {
  return createMiddleware({
    name: 'model-call-limit',
    wrapModelCall: async (request, handler) => {
      const calls = request.messages.filter((message) => AIMessage.isInstance(message)).length;
      // Milliseconds of the library's own work lie on both sides: sockets are served between them.
      await nextTurn();
      if (calls < limit) return handler(request);
      throw new RunnerError(
        'model_call_limit',
        `The agents called the model more often than the ${limit} times that a run may. Ask for less at once.`,
      );
    },
  }) as AgentMiddleware;
}
