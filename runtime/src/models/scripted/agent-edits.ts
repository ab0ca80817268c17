import { targetOf, withSentence, writeDefinition } from './capability-edits.js';
import { updateCast } from './cast-edits.js';
import { type AgentAt, agentNamed, castTextOf, type DefinitionView } from './definition-text.js';
import { withItem, withoutItem, withValue } from './json-text.js';
import { castPathOf, castPathsOf, definitionPath } from './layout.js';
import { noteWish } from './note-wish.js';
import { agentNameOf, type Wish } from './wish.js';
import type { Workspace } from './workspace.js';

/** Fulfils the wishes that are about agents as such; any other becomes a requirement. */
export function changeAgents(wish: Wish, definition: DefinitionView, files: Workspace): void {
  if (wish.kind === 'add-agent' && wish.target !== null) addAgent(wish.target, wish, definition, files);
  else if (wish.kind === 'remove-agent' && wish.target !== null) removeAgent(wish.target, definition, files);
  else if (wish.kind === 'rename-agent') renameAgent(wish, definition, files);
  else instruct(wish, definition, files);
}

function addAgent(name: string, wish: Wish, definition: DefinitionView, files: Workspace): void {
  if (agentNamed(definition.agents, name) !== null) {
    files.note(`The agent ${name} is there already.`);
    return;
  }
  const agent = newAgent(agentNameOf(name), wish.text);
  const { id, description, prompt, tools } = agent;
  const data = { name: agent.name, description, system_prompt: prompt, tools };
  const node =
    definition.inner === null
      ? { id, type: 'Specialist', ...data }
      : { id, type: 'Specialist', [definition.inner]: data };
  const before = files.read(definitionPath) ?? '';
  let text = withItem(before, definition.nodesPath, node);
  const leader = definition.agents.findLast(({ leads }) => leads);
  if (definition.edgesPath !== null && leader?.id) {
    text = withItem(text, definition.edgesPath, { source: leader.id, target: id, type: 'specialists' });
  }
  writeDefinition(text, before, definition, 1, files);
  const page = castPathOf(agent.name);
  if (files.isAbsent(page)) files.write(page, castTextOf(agent));
}

/** An agent from nothing but its name and the wish that asks for it. */
export function newAgent(name: string, wish: string): AgentAt {
  const description = `Takes care of what the user asked for: "${wish}"`;
  const prompt = `You are ${name}. You were added for this request: "${wish}". Do only this, and report what you did.`;
  const id = name.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
  return { id, name, leads: false, description, path: [], prompt, tools: [] };
}

function removeAgent(name: string, definition: DefinitionView, files: Workspace): void {
  const agent = agentNamed(definition.agents, name);
  if (agent === null || agent.leads || definition.agents.length === 1) {
    files.note(
      agent === null
        ? `There is no agent ${name}; there was nothing to remove.`
        : `${agent.name} leads the others and stays.`,
    );
    return;
  }
  const before = files.read(definitionPath) ?? '';
  const index = agent.path.findLast((key) => typeof key === 'number');
  let text = withoutItem(before, definition.nodesPath, Number(index));
  for (const [at, edge] of [...definition.edges.entries()].reverse()) {
    const { source, target } = (edge ?? {}) as { source?: unknown; target?: unknown };
    if (definition.edgesPath !== null && agent.id !== null && (source === agent.id || target === agent.id)) {
      text = withoutItem(text, definition.edgesPath, at);
    }
  }
  writeDefinition(text, before, definition, -1, files);
  for (const page of castPathsOf(agent.name)) if (files.read(page) !== null) files.write(page, null);
}

function renameAgent(wish: Wish, definition: DefinitionView, files: Workspace): void {
  const agent = agentNamed(definition.agents, wish.target ?? '');
  const newName = /\s/.test(agent?.name ?? ' ') ? (wish.newName ?? '') : agentNameOf(wish.newName ?? '');
  if (newName === '') {
    noteWish(wish, files);
    return;
  }
  if (agent === null || agentNamed(definition.agents, newName) !== null) {
    files.note(
      `${wish.target} was not renamed: ${agent === null ? 'there is no such agent' : `${newName} is there already`}.`,
    );
    return;
  }
  const word = new RegExp(
    `(?<![A-Za-z0-9_])${agent.name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![A-Za-z0-9_])`,
    'g',
  );
  let text = withValue(files.read(definitionPath) ?? '', [...agent.path, 'name'], newName);
  for (const { path, prompt } of definition.agents) {
    const renamed = prompt?.replace(word, () => newName);
    if (renamed !== undefined && renamed !== prompt)
      text = withValue(text, [...path, 'system_prompt'], renamed);
  }
  files.write(definitionPath, text);
  for (const page of castPathsOf(agent.name)) {
    const cast = files.read(page);
    if (cast === null) continue;
    files.write(page, null);
    files.write(
      castPathOf(newName),
      cast.replace(word, () => newName),
    );
  }
}

/** A change that only a model could work out: the agent is told of it, and it becomes a requirement. */
function instruct(wish: Wish, definition: DefinitionView, files: Workspace): void {
  noteWish(wish, files);
  const agent = wish.target === null && wish.contextPath === null ? null : targetOf(wish, definition);
  if (!agent || agent.prompt === null) return;
  const before = files.read(definitionPath) ?? '';
  const prompt = withSentence(agent.prompt, `Follow this wish of the user: "${wish.text}"`);
  writeDefinition(withValue(before, [...agent.path, 'system_prompt'], prompt), before, definition, 1, files);
  updateCast(agent, files);
}
