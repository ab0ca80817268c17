import { createHash } from 'node:crypto';
import type { BaseMessage } from '@langchain/core/messages';

import type { WireFile, WireFiles } from '../agent-runner.js';
import { isInternalPath, pathFault } from './file-rules.js';
import { shortened } from './short-text.js';

/** Longest text of a message in a state frame, in characters; tool results are shorter, they repeat files. */
const longestText = 8_000;
const longestToolText = 400;

/** The part of a graph's state that is shown. */
export interface GraphState {
  files?: Record<string, unknown>;
  todos?: unknown[];
  messages?: BaseMessage[];
}

/** What one state update carries. */
export interface StateData {
  files: WireFiles;
  todos: unknown[];
  messages: unknown[];
  [key: string]: unknown;
}

/** The newest state of a run over all of its agents. */
export interface StateView {
  /**
   * Takes the state of the main agent (`[]`) or of a sub-agent (its namespace). Answers what is to be
   * told, or null where nothing that is shown has changed.
   */
  update(namespace: readonly string[], state: GraphState): StateData | null;
  /** All files as of now; `null` for each that the run was given and deleted. */
  files(): WireFiles;
}

type Files = Record<string, WireFile>;

/** @param given paths that the run was given: the absence of one is told as `null` */
export function createStateView(given: readonly string[]): StateView {
  let root: Files = {};
  let rootState: GraphState = {};
  let told = '';
  // What each sub-agent has changed since it began. Several work at once, and each sees only its own files.
  const branches = new Map<string, { base: Files; files: Files }>();

  const live = (): Files => {
    const merged = { ...root };
    for (const { base, files } of branches.values()) {
      for (const [path, file] of Object.entries(files)) {
        if (fingerprintOf(file) !== fingerprintOf(base[path])) merged[path] = file;
      }
      for (const path of Object.keys(base)) if (!(path in files)) delete merged[path];
    }
    return merged;
  };
  const view = (): WireFiles => withDeleted(live(), given);

  return {
    files: view,
    update(namespace, state) {
      const files = filesOf(state.files);
      if (namespace.length === 0) {
        root = files;
        rootState = state;
        // The main agent's next state holds all that its sub-agents brought back.
        branches.clear();
      } else {
        const key = namespace.join('|');
        branches.set(key, { base: branches.get(key)?.base ?? root, files });
      }
      const now = view();
      const messages = rootState.messages ?? [];
      const print = [
        ...Object.entries(now).map(([path, file]) => `${path}\u0000${fingerprintOf(file)}`),
        JSON.stringify(rootState.todos ?? []),
        messages.length,
      ].join('\u0001');
      if (print === told) return null;
      told = print;
      return stateDataOf(now, rootState);
    },
  };
}

/** The whole state in the form of a state update. */
export function stateDataOf(files: WireFiles, state: GraphState): StateData {
  return { files, todos: state.todos ?? [], messages: (state.messages ?? []).map(compactMessage) };
}

/** The files of a graph's state in wire form, without the library's own entries and unsafe paths. */
export function filesOf(files: Record<string, unknown> | undefined): Files {
  const kept: Files = {};
  for (const [path, file] of Object.entries(files ?? {})) {
    if (isInternalPath(path) || pathFault(path) !== null) continue;
    const wire = wireFileOf(file);
    if (wire !== null) kept[path] = wire;
  }
  return kept;
}

/** Adds `null` for each given path that is no longer there. */
export function withDeleted(files: Files, given: readonly string[]): WireFiles {
  const wire: WireFiles = { ...files };
  for (const path of given) if (!(path in files)) wire[path] = null;
  return wire;
}

/** The library's second format holds one string; images and the like are no files of a specification. */
function wireFileOf(file: unknown): WireFile | null {
  if (typeof file !== 'object' || file === null || !('content' in file)) return null;
  if (Array.isArray(file.content)) return file as WireFile;
  if (typeof file.content !== 'string') return null;
  return { ...(file as unknown as WireFile), content: file.content.split('\n') };
}

const fingerprints = new WeakMap<object, string>();

/** States share the objects of unchanged files, so each content is hashed once. */
function fingerprintOf(file: WireFile | null | undefined): string {
  if (!file) return '';
  let print = fingerprints.get(file.content);
  if (print === undefined) {
    print = createHash('sha1').update(file.content.join('\n')).digest('base64');
    fingerprints.set(file.content, print);
  }
  return print;
}

const compacted = new WeakMap<object, unknown>();

function compactMessage(message: BaseMessage): unknown {
  const known = compacted.get(message);
  if (known !== undefined) return known;
  const type = message.getType();
  const calls = 'tool_calls' in message && Array.isArray(message.tool_calls) ? message.tool_calls : [];
  const compact = {
    type,
    ...(message.id === undefined ? {} : { id: message.id }),
    content: shortened(message.text, type === 'tool' ? longestToolText : longestText),
    ...(message.name === undefined ? {} : { name: message.name }),
    ...('tool_call_id' in message ? { tool_call_id: message.tool_call_id } : {}),
    ...(calls.length === 0
      ? {}
      : {
          tool_calls: calls.map((call: { id?: string; name: string }) => ({ id: call.id, name: call.name })),
        }),
  };
  // An input message gets its id only when the graph takes it in.
  if (message.id !== undefined) compacted.set(message, compact);
  return compact;
}
