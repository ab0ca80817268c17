import './library-settings.js';
import { AIMessage, type BaseMessage, HumanMessage, SystemMessage } from '@langchain/core/messages';

import type { RunInput, WireFile } from '../agent-runner.js';
import { isInternalPath, pathFault } from './file-rules.js';
import { RunnerError } from './runner-error.js';

/** What the graph is started with. */
export interface GraphInput {
  messages: BaseMessage[];
  files: Record<string, WireFile>;
}

/** Texts that older callers send beside or instead of messages, with the heading each gets. */
const furtherTexts = [
  ['instructions', null],
  ['user_request', null],
  ['context', 'Context'],
  ['context_file_path', 'Context file'],
] as const;

/**
 * The graph's input from what invoke was given.
 *
 * @param now RFC 3339 time for files that were given without one
 * @throws RunnerError `invalid_input` where there is nothing to do, or a file cannot be one
 */
export function graphInputOf(input: RunInput, now: string): GraphInput {
  return { messages: messagesOf(input), files: givenFiles(input, now) };
}

/** The paths that the run was given. */
export function givenPathsOf(input: RunInput): string[] {
  return Object.keys(input.input_payload.files ?? {});
}

function messagesOf({ agent_definition, input_payload }: RunInput): BaseMessage[] {
  const sent: unknown = input_payload.messages ?? [];
  if (!Array.isArray(sent)) throw invalid('"messages" is not a list');
  const messages = sent.map((message: unknown, at) => {
    const { role, content } = (message ?? {}) as { role?: unknown; content?: unknown };
    if (typeof content !== 'string') throw invalid(`message ${at + 1} has no text`);
    if (role === 'assistant' || role === 'ai') return new AIMessage(content);
    if (role === 'system') return new SystemMessage(content);
    return new HumanMessage(content);
  });
  const further = furtherTexts.flatMap(([key, heading]) => {
    const text = input_payload[key] ?? (key === 'user_request' ? agent_definition.user_request : undefined);
    if (typeof text !== 'string' || text.trim() === '') return [];
    return [heading === null ? text : `## ${heading}\n\n${text}`];
  });
  if (further.length > 0) messages.push(new HumanMessage(further.join('\n\n')));
  if (!messages.some((message) => message.getType() === 'human' && message.text.trim() !== '')) {
    throw invalid('it holds no request of a user');
  }
  return messages;
}

function givenFiles(input: RunInput, now: string): Record<string, WireFile> {
  const files: unknown = input.input_payload.files ?? {};
  if (typeof files !== 'object' || files === null || Array.isArray(files))
    throw invalid('"files" is not a map');
  return Object.fromEntries(
    Object.entries(files as Record<string, unknown>).map(([path, file]) => {
      const fault = isInternalPath(path) ? 'its folder is reserved' : pathFault(path);
      if (fault !== null)
        throw invalid(`the path ${JSON.stringify(path.slice(0, 200))} cannot be used: ${fault}`);
      const { content, created_at, modified_at } = (file ?? {}) as Partial<Record<keyof WireFile, unknown>>;
      if (!Array.isArray(content) || !content.every((line) => typeof line === 'string')) {
        throw invalid(`the content of ${JSON.stringify(path)} is not a list of lines`);
      }
      const created = typeof created_at === 'string' ? created_at : now;
      const modified = typeof modified_at === 'string' ? modified_at : created;
      return [path, { content, created_at: created, modified_at: modified }];
    }),
  );
}

function invalid(why: string): RunnerError {
  return new RunnerError('invalid_input', `The input of the run cannot be used: ${why}.`);
}
