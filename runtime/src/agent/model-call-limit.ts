import './library-settings.js';
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
    wrapModelCall: (request, handler) => {
      const calls = request.messages.filter((message) => AIMessage.isInstance(message)).length;
      if (calls < limit) return handler(request);
      throw new RunnerError(
        'model_call_limit',
        `The agents called the model more often than the ${limit} times that a run may. Ask for less at once.`,
      );
    },
  }) as AgentMiddleware;
}
