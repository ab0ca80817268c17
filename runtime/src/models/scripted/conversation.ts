import '../../agent/library-settings.js';
import { AIMessage, type BaseMessage, ToolMessage } from '@langchain/core/messages';

import { type Directives, directivesOf } from './directives.js';
import { type Wish, wishOf } from './wish.js';

/** What a file was when the script read it: its text, `null` = not there, `unreadable` = too long to be edited whole. */
export type SeenFile = string | null | 'unreadable';

/** A conversation, as far as the script has to know it. */
export interface Conversation {
  /** All requests that no summary has answered yet, the oldest first. */
  wishes: Wish[];
  directives: Directives;
  /** Turns of the script since the newest request. */
  turns: { reads: boolean }[];
  /** Files read since the newest request. */
  seen: Map<string, SeenFile>;
  /** Identifies the conversation's requests. */
  key: string;
}

/**
 * Reads a conversation. A request that arrives while another is worked on begins the script anew with
 * both: every edit is one that changes nothing when it is already there.
 */
export function conversationOf(messages: readonly BaseMessage[]): Conversation {
  const requests: string[] = [];
  let turns: AIMessage[] = [];
  let answered = false;
  for (const message of messages) {
    if (message.getType() === 'human') {
      if (answered) requests.length = 0;
      requests.push(message.text);
      turns = [];
      answered = false;
    } else if (AIMessage.isInstance(message)) {
      turns.push(message);
      answered = (message.tool_calls ?? []).length === 0;
    }
  }
  const parsed = requests.map(directivesOf);
  const newest = parsed.at(-1)?.directives ?? directivesOf('').directives;
  return {
    wishes: parsed.map(({ text }) => wishOf(text)),
    directives: { ...newest, deletes: parsed.flatMap(({ directives }) => directives.deletes) },
    turns: turns.map((turn) => ({ reads: turn.tool_calls?.[0]?.name === 'read_file' })),
    seen: seenIn(messages, turns),
    key: requests.join('\u0000'),
  };
}

function seenIn(messages: readonly BaseMessage[], turns: readonly AIMessage[]): Map<string, SeenFile> {
  const paths = new Map<string, string>();
  for (const { tool_calls: calls = [] } of turns) {
    for (const { id, name, args } of calls) {
      if (name === 'read_file' && id) paths.set(id, String((args as { file_path?: unknown }).file_path));
    }
  }
  const seen = new Map<string, SeenFile>();
  for (const message of messages) {
    if (!ToolMessage.isInstance(message)) continue;
    const path = paths.get(message.tool_call_id);
    if (path !== undefined) seen.set(path, textRead(message.text));
  }
  return seen;
}

/** The file tool puts the lines that it shows above the text: `@@ lines 1-4 of 4 @@`. */
export function textRead(result: string): SeenFile {
  const header = /^@@ lines (\d+)-(\d+) of (\d+)([^\n]*)@@\n/.exec(result);
  if (header !== null) {
    const whole = header[1] === '1' && header[2] === header[3] && header[4]?.trim() === '';
    return whole ? result.slice(header[0].length) : 'unreadable';
  }
  if (/^Error: .*not found/.test(result)) return null;
  return /exists but has empty contents/.test(result) ? '' : 'unreadable';
}
