import './library-settings.js';
import { HumanMessage } from '@langchain/core/messages';
import { type AgentMiddleware, createMiddleware } from 'langchain';

/** Messages of the stream's reader that no model turn has seen yet. */
export interface ReaderInbox {
  put(content: string): void;
  /** Goes into the main agent only: a sub-agent works on the task that it was given. */
  middleware: AgentMiddleware;
}

/**
 * Hands the reader's messages to the next model turn. Where the turn that was under way turns out to be
 * the last one, one more follows: an accepted message is never left unheard by a run that goes on.
 */
export function createReaderInbox(): ReaderInbox {
  let waiting: string[] = [];
  const take = () => {
    const messages = waiting.map((content) => new HumanMessage(content));
    waiting = [];
    return messages;
  };
  const middleware = createMiddleware({
    name: 'reader-inbox',
    beforeModel: () => (waiting.length > 0 ? { messages: take() } : undefined),
    // Not `afterModel`: each hook of a turn is a step of its own, with a checkpoint of its own.
    afterAgent: {
      canJumpTo: ['model'],
      // The jump leads past `beforeModel`, so the messages are handed over here.
      hook: () => (waiting.length > 0 ? { messages: take(), jumpTo: 'model' as const } : undefined),
    },
  }) as AgentMiddleware;
  return { put: (content) => void waiting.push(content), middleware };
}
