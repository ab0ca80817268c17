import { AIMessage, type BaseMessage, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { nextTurnOf } from '../../src/models/scripted/script.js';
import type { ScriptTools } from '../../src/models/scripted/script-tools.js';

/** Plays the script against files held in memory, with file tools that behave like the real ones. */
export function play(
  prompt: string,
  files: Record<string, string>,
  tools: ScriptTools | null = null,
): { files: Record<string, string>; texts: string[]; calls: string[] } {
  const now = { ...files };
  const texts: string[] = [];
  const made: string[] = [];
  const messages: BaseMessage[] = [new HumanMessage(prompt)];
  for (let turn = 0; turn < 40; turn += 1) {
    const { text, calls } = nextTurnOf(messages, tools);
    texts.push(text);
    const named = calls.map((call, at) => ({ ...call, id: `${turn}.${at}`, type: 'tool_call' as const }));
    messages.push(new AIMessage({ content: text, tool_calls: named }));
    if (named.length === 0) return { files: now, texts, calls: made };
    for (const { name, args, id } of named) {
      made.push(name);
      messages.push(new ToolMessage({ content: apply(now, name, args), tool_call_id: id }));
    }
  }
  throw new Error('The script does not end.');
}

function apply(files: Record<string, string>, name: string, args: Record<string, unknown>): string {
  const path = String(args.file_path);
  const text = files[path];
  if (name === 'read_file') {
    if (text === undefined) return `Error: File '${path}' not found`;
    if (text === '') return 'System reminder: File exists but has empty contents';
    // Like the real tool, it does not tell a final newline from none.
    const shown = text.replace(/\n$/, '');
    const lines = shown.split('\n').length;
    return `@@ lines 1-${lines} of ${lines} @@\n${shown}`;
  }
  if (name === 'write_file') files[path] = String(args.content);
  if (name === 'delete') delete files[path];
  if (name === 'edit_file') {
    const parts = (text ?? '').split(String(args.old_string));
    if (parts.length !== 2) throw new Error(`The replaced text stands ${parts.length - 1} times in ${path}.`);
    files[path] = parts.join(String(args.new_string));
  }
  return 'ok';
}
