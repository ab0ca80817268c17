import './library-settings.js';
import { ToolMessage } from '@langchain/core/messages';
import { type Command, getWriter } from '@langchain/langgraph';
import { type AgentMiddleware, createMiddleware } from 'langchain';

import { shortened } from './short-text.js';

/** Longest string inside the input of a tool event, in characters: whole files are in the state anyway. */
const longestInput = 400;
/** Longest summary of a tool's result, in characters. */
const longestOutput = 400;

/** What the middleware writes into the run's stream; the stream's consumer turns it into an event. */
export interface ToolNotice {
  tool_event: 'on_tool_start' | 'on_tool_end';
  data: Record<string, unknown>;
}

/** True for what {@link createToolEvents} wrote into the stream. */
export function isToolNotice(value: unknown): value is ToolNotice {
  return typeof value === 'object' && value !== null && 'tool_event' in value;
}

/**
 * Tells of every tool call through the run's own stream, so that its events keep their place between
 * the tokens before and the state after them.
 */
export function createToolEvents(agent: string): AgentMiddleware {
  return createMiddleware({
    name: 'tool-events',
    wrapToolCall: async (request, handler) => {
      const { name, args, id } = request.toolCall;
      const about = { name, tool_call_id: id ?? '', agent };
      tell({ tool_event: 'on_tool_start', data: { ...about, input: shortInput(args) } });
      let ended: Record<string, unknown> = { status: 'error', output: 'The tool failed.' };
      try {
        const result = await handler(request);
        const message = messageIn(result);
        ended = {
          status: message?.status ?? 'success',
          ...(message === undefined ? {} : { output: shortened(message.text, longestOutput) }),
        };
        return result;
      } finally {
        tell({ tool_event: 'on_tool_end', data: { ...about, ...ended } });
      }
    },
  }) as AgentMiddleware;
}

/** A tool answers with a message, or with a change of the state that holds one. */
function messageIn(result: ToolMessage | Command): ToolMessage | undefined {
  if (ToolMessage.isInstance(result)) return result;
  const { messages } = (result.update ?? {}) as { messages?: unknown };
  return Array.isArray(messages) ? messages.find((message) => ToolMessage.isInstance(message)) : undefined;
}

function tell(notice: ToolNotice): void {
  getWriter()?.(notice);
}

function shortInput(input: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(input).map(([key, value]) => [
      key,
      typeof value === 'string' ? shortened(value, longestInput) : value,
    ]),
  );
}
