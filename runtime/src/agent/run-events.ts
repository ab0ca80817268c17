import type { BaseMessage } from '@langchain/core/messages';

import type { RunEvent } from '../agent-runner.js';
import type { GraphState, StateView } from './state-view.js';
import { isToolNotice } from './tool-events.js';

/** One item of the graph's stream with sub-graphs and several modes. */
export type StreamItem = [namespace: string[], mode: string, data: unknown];

interface TokenChunk extends BaseMessage {
  tool_call_chunks?: { index?: number; id?: string; name?: string; args?: string }[];
}

/**
 * Turns one item of the graph's stream into the event that is told, or null.
 *
 * @param displayNames the name that people see, by the name that models see
 */
export function runEventOf(
  [namespace, mode, data]: StreamItem,
  view: StateView,
  displayNames: ReadonlyMap<string, string>,
): RunEvent | null {
  const shown = (agent: unknown) => (typeof agent === 'string' ? (displayNames.get(agent) ?? agent) : null);
  if (mode === 'messages') {
    const [message, about] = data as [TokenChunk, Record<string, unknown>];
    if (message.getType() !== 'ai') return null;
    const content = message.text;
    const calls = message.tool_call_chunks ?? [];
    if (content === '' && calls.length === 0) return null;
    return {
      event_type: 'on_llm_stream',
      data: {
        content,
        node: about.langgraph_node,
        message_id: message.id,
        agent: shown(about.lc_agent_name),
        ...(calls.length === 0 ? {} : { tool_call_chunks: calls.map(compactChunk) }),
      },
    };
  }
  if (mode === 'custom') {
    if (!isToolNotice(data)) return null;
    return { event_type: data.tool_event, data: { ...data.data, agent: shown(data.data.agent) } };
  }
  const state = data as GraphState;
  // A chunk without messages tells of an interrupt, not of a state.
  if (mode !== 'values' || state.messages === undefined) return null;
  const told = view.update(namespace, state);
  return told === null ? null : { event_type: 'on_state_update', data: told };
}

function compactChunk({ index, id, name, args }: NonNullable<TokenChunk['tool_call_chunks']>[number]) {
  return { index, ...(id ? { id } : {}), ...(name ? { name } : {}), args: args ?? '' };
}
