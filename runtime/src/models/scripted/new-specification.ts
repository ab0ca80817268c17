import { newAgent } from './agent-edits.js';
import { castTextOf } from './definition-text.js';
import {
  castPathOf,
  constitutionPath,
  definitionPath,
  planPath,
  requestPath,
  requirementsPath,
} from './layout.js';
import { planStepOf, requirementOf } from './note-wish.js';
import { agentNameOf, type Wish } from './wish.js';
import type { Workspace } from './workspace.js';

/** Writes a specification from nothing but a wish. A file that is there already stays as it is. */
export function createSpecification(wish: Wish, files: Workspace): void {
  const title = titleOf(wish);
  const leader = {
    ...newAgent('Coordinator', wish.text),
    description: 'Understands the request and gives each part of it to the agent that is made for it.',
    prompt: `You coordinate "${title}". Give each part of a request to the agent that is made for it, check what comes back against the constitution, and answer the user.`,
  };
  const specialist = newAgent(specialistNameOf(wish, title), wish.text);
  const agents = [leader, specialist];
  const definition = {
    name: title,
    version: '1.0.0',
    tool_definitions: [],
    nodes: agents.map(({ id, name, description, prompt, tools }) => ({
      id,
      type: name === leader.name ? 'Orchestrator' : 'Specialist',
      config: { name, description, system_prompt: prompt, tools },
    })),
    edges: [{ source: leader.id, target: specialist.id, type: 'specialists' }],
  };
  const texts: [string, string][] = [
    [requestPath, `# Request\n\n${wish.text}\n`],
    [
      constitutionPath,
      `# Constitution of ${title}\n\n1. Every answer serves the request: "${wish.text}"\n2. What is not known is said to be unknown, never made up.\n3. Nothing is done outside the workflow without the user's consent.\n`,
    ],
    [requirementsPath, `# Requirements\n\n1. ${requirementOf(wish)}\n`],
    [planPath, `# Plan\n\n1. ${planStepOf(wish)}\n`],
    ...agents.map((agent): [string, string] => [castPathOf(agent.name), castTextOf(agent)]),
    [definitionPath, `${JSON.stringify(definition, null, 2)}\n`],
  ];
  for (const [path, text] of texts) if (files.isAbsent(path)) files.write(path, text);
}

function titleOf(wish: Wish): string {
  const subject = wish.capability?.label ?? wish.subject;
  const bare = subject.replace(/\s+(workflows?|specifications?|systems?|apps?|applications?|teams?)$/i, '');
  const words = (bare === '' ? 'New workflow' : bare).split(' ').slice(0, 6).join(' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function specialistNameOf(wish: Wish, title: string): string {
  const wanted = wish.kind === 'rename-agent' ? wish.newName : wish.target;
  const name = agentNameOf(wanted ?? title) || 'Worker';
  return /agent$/i.test(name) ? name : `${name}Agent`;
}
