import './library-settings.js';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { HumanMessage } from '@langchain/core/messages';
import { type AgentMiddleware, createMiddleware } from 'langchain';

/** Messages of one run's reader that no model turn has seen yet. */
interface ReaderInbox {
  put(content: string): void;
  /** The run has ended: nobody hears what comes now. */
  close(): void;
}

/** The inboxes of all runs: an agent is built once for many of them, so it finds a run's own by its thread. */
export interface ReaderInboxes {
  open(threadId: string): ReaderInbox;
  /** Goes into the main agent only: a sub-agent works on the task that it was given. */
  middleware: AgentMiddleware;
}

/**
 * Hands the reader's messages to the next model turn. Where the turn that was under way turns out to be
 * the last one, one more follows: an accepted message is never left unheard by a run that goes on.
 */
export function createReaderInboxes(): ReaderInboxes {
  const inboxes = new Map<string, string[]>();
  const take = (threadId: unknown): HumanMessage[] =>
    inboxes
      .get(String(threadId))
      ?.splice(0)
      .map((content) => new HumanMessage(content)) ?? [];
  const middleware = createMiddleware({
    name: 'reader-inbox',
    beforeModel: async (_state, { configurable }) => {
      // Every step before a turn is the library's own work: what has arrived meanwhile is heard first.
      await nextTurn();
      const messages = take(configurable?.thread_id);
      return messages.length > 0 ? { messages } : undefined;
    },
    // Not `afterModel`: each hook of a turn is a step of its own, with a checkpoint of its own.
    afterAgent: {
      canJumpTo: ['model'],
      // The jump leads past `beforeModel`, so the messages are handed over here.
      hook: (_state, { configurable }) => {
        const messages = take(configurable?.thread_id);
        return messages.length > 0 ? { messages, jumpTo: 'model' as const } : undefined;
      },
    },
  }) as AgentMiddleware;
  return {
    open(threadId) {
      const waiting: string[] = [];
      inboxes.set(threadId, waiting);
      return {
        put: (content) => void waiting.push(content),
        close: () => {
          if (inboxes.get(threadId) === waiting) inboxes.delete(threadId);
        },
      };
    },
    middleware,
  };
}
