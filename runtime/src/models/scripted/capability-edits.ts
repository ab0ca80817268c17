import type { Capability } from './capabilities.js';
import { updateCast } from './cast-edits.js';
import {
  type AgentAt,
  agentNamed,
  type DefinitionView,
  definitionIn,
  versionMoved,
} from './definition-text.js';
import { withItem, withoutItem, withValue } from './json-text.js';
import { constitutionPath, definitionPath } from './layout.js';
import { withNumbered, withoutNumbered } from './list-text.js';
import { noteWish } from './note-wish.js';
import type { Wish } from './wish.js';
import type { Workspace } from './workspace.js';

const section = 'Added principles';

/** Gives an agent a capability: its tool, a sentence in its prompt, a principle, its page. */
export function addCapability(wish: Wish, definition: DefinitionView, files: Workspace): void {
  const { capability } = wish;
  const agent = targetOf(wish, definition);
  if (capability === null || agent === undefined) {
    noteWish(wish, files);
    return;
  }
  const before = files.read(definitionPath) ?? '';
  let text = before;
  if (agent.tools !== null && !agent.tools.includes(capability.tool)) {
    text = withItem(text, [...agent.path, 'tools'], capability.tool);
  }
  if (agent.prompt !== null)
    text = withValue(text, [...agent.path, 'system_prompt'], withSentence(agent.prompt, capability.rule));
  const defined = definition.toolDefinitions?.some((entry) => toolNameIn(entry) === capability.tool) ?? true;
  if (!defined) text = withItem(text, ['tool_definitions'], toolDefinitionOf(capability));
  writeDefinition(text, before, definition, 1, files);
  const constitution = files.read(constitutionPath);
  if (constitution !== null)
    files.write(constitutionPath, withNumbered(constitution, capability.principle, section));
  updateCast(agent, files);
  if (text === before) files.note(`${agent.name} has ${capability.label} already.`);
}

/** Takes a capability away again: the exact opposite of adding it. */
export function removeCapability(wish: Wish, definition: DefinitionView, files: Workspace): void {
  const { capability } = wish;
  if (capability === null) {
    noteWish(wish, files);
    return;
  }
  const named = wish.target === null ? null : agentNamed(definition.agents, wish.target);
  const has = (agent: AgentAt) =>
    agent.tools?.includes(capability.tool) || agent.prompt?.includes(capability.rule);
  const holders = definition.agents.filter((agent) => has(agent) && (named === null || agent === named));
  if (holders.length === 0) {
    files.note(`No agent has ${capability.label}; there was nothing to remove.`);
    return;
  }
  const before = files.read(definitionPath) ?? '';
  let text = before;
  for (const agent of holders) {
    const at = agent.tools?.lastIndexOf(capability.tool) ?? -1;
    if (at >= 0) text = withoutItem(text, [...agent.path, 'tools'], at);
    if (agent.prompt !== null)
      text = withValue(
        text,
        [...agent.path, 'system_prompt'],
        withoutSentence(agent.prompt, capability.rule),
      );
  }
  const left = definitionIn(text)?.agents.some(has) ?? true;
  if (!left) {
    // Only what adding has put there: a definition or a principle of a person's own stays.
    const ours = JSON.stringify(toolDefinitionOf(capability));
    const at = definition.toolDefinitions?.findLastIndex((entry) => JSON.stringify(entry) === ours) ?? -1;
    if (at >= 0) text = withoutItem(text, ['tool_definitions'], at);
    const constitution = files.read(constitutionPath);
    if (constitution !== null)
      files.write(constitutionPath, withoutNumbered(constitution, capability.principle, section));
  }
  writeDefinition(text, before, definition, -1, files);
  for (const agent of holders) updateCast(agent, files);
}

/** Writes the definition, with its version moved, where something in it has changed. */
export function writeDefinition(
  text: string,
  before: string,
  { version }: DefinitionView,
  step: 1 | -1,
  files: Workspace,
): void {
  if (text === before) return;
  files.write(
    definitionPath,
    version === null ? text : withValue(text, ['version'], versionMoved(version, step)),
  );
}

/** The agent that a wish is about: the one it names, the one the user looks at, else the first specialist. */
export function targetOf(wish: Wish, { agents }: DefinitionView): AgentAt | undefined {
  const looked = /^\/THE_CAST\/(.+)\.md$/.exec(wish.contextPath ?? '')?.[1];
  const named = [wish.target, looked].flatMap((name) => (name ? [agentNamed(agents, name)] : []));
  return named.find((agent) => agent !== null) ?? agents.find(({ leads }) => !leads) ?? agents[0];
}

export function withSentence(prompt: string, sentence: string): string {
  if (prompt.includes(sentence)) return prompt;
  return prompt === '' ? sentence : `${prompt} ${sentence}`;
}

function withoutSentence(prompt: string, sentence: string): string {
  return prompt === sentence ? '' : prompt.replace(` ${sentence}`, '');
}

function toolDefinitionOf({ tool, rule }: Capability) {
  return { name: tool, description: rule };
}

function toolNameIn(entry: unknown): unknown {
  return typeof entry === 'object' && entry !== null && 'name' in entry ? entry.name : undefined;
}
