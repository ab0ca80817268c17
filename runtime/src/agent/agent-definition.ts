import { builtInDefinition } from './builtin-agent.js';
import { RunnerError } from './runner-error.js';

/** One agent, whatever shape its definition had. */
export interface AgentSpec {
  /** What models and the `task` tool see: lower case, digits and hyphens. */
  slug: string;
  /** What people see. */
  displayName: string;
  description: string;
  systemPrompt: string;
  tools: string[];
  /** The model that the definition asks for, where it names one. */
  model: { provider: string; model: string } | null;
}

/** What a definition says about a tool; its script, if it has one, is not read. */
export interface ToolNote {
  description: string;
}

/** A definition in its one canonical form. */
export interface AgentTeam {
  main: AgentSpec;
  specialists: AgentSpec[];
  toolNotes: Map<string, ToolNote>;
}

type Loose = Record<string, unknown>;

/**
 * Brings the known shapes (`nodes[].config`, flat `nodes[]`, `graph.nodes[].data`) into one. The last
 * orchestrator is the main agent; without one it is the first node. An empty definition means the
 * built-in specification builder.
 *
 * @throws RunnerError `invalid_definition` for a definition whose nodes cannot be read
 */
export function teamOf(definition: Loose): AgentTeam {
  const graph = looseOf(definition.graph);
  const nodes = definition.nodes ?? graph?.nodes ?? [];
  if (!Array.isArray(nodes)) throw invalid('its nodes are not a list');
  if (nodes.length === 0) return teamOf(builtInDefinition);

  const entryPoint = graph?.entryPoint ?? definition.entryPoint;
  const parsed = nodes.map((node: unknown, at) => {
    const outer = looseOf(node);
    if (outer === null) throw invalid(`its node ${at + 1} is not an object`);
    const inner = looseOf(outer.config) ?? looseOf(outer.data) ?? outer;
    return { spec: specOf(inner), leads: leadsOf(outer, inner, entryPoint) };
  });
  const leader = parsed.findLast((node) => node.leads) ?? parsed[0];
  if (leader === undefined) throw invalid('it has no nodes');

  const specialists = new Map<string, AgentSpec>();
  for (const node of parsed) {
    // Further orchestrators are start nodes of the editor, not agents to delegate to.
    if (node === leader || node.leads || node.spec.slug === leader.spec.slug) continue;
    if (!specialists.has(node.spec.slug)) specialists.set(node.spec.slug, node.spec);
  }
  return {
    main: leader.spec,
    specialists: [...specialists.values()],
    toolNotes: toolNotesOf(definition.tool_definitions),
  };
}

/** A name that every provider accepts: letters, digits and hyphens, at most 60 characters. */
export function slugOf(name: string): string {
  const plain = name
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60);
  return plain === '' ? 'agent' : plain;
}

function leadsOf(outer: Loose, inner: Loose, entryPoint: unknown): boolean {
  if (typeof entryPoint === 'string' && outer.id === entryPoint) return true;
  const roles = [outer.type, inner.type, inner.displayRole];
  return roles.some((role) => typeof role === 'string' && role.toLowerCase() === 'orchestrator');
}

function specOf(config: Loose): AgentSpec {
  const displayName = textOf(config.name) || 'unnamed agent';
  const systemPrompt = textOf(config.system_prompt) || textOf(config.systemPrompt);
  const short = systemPrompt.length > 200 ? `${systemPrompt.slice(0, 200)}...` : systemPrompt;
  return {
    slug: slugOf(displayName),
    displayName,
    description: textOf(config.description) || short || displayName,
    systemPrompt,
    tools: listOf(config.tools).flatMap((entry) => {
      const name = toolNameOf(typeof entry === 'string' ? entry : textOf(looseOf(entry)?.name));
      return name === '' ? [] : [name];
    }),
    model: modelOf(config.model ?? config.llm_config),
  };
}

function modelOf(value: unknown): AgentSpec['model'] {
  if (typeof value === 'string') {
    const [provider, ...rest] = value.split(':');
    return provider && rest.length > 0 ? { provider, model: rest.join(':') } : null;
  }
  const loose = looseOf(value);
  const model = textOf(loose?.model) || textOf(loose?.model_name);
  return model === '' ? null : { provider: textOf(loose?.provider) || 'openai', model };
}

function toolNotesOf(value: unknown): Map<string, ToolNote> {
  return new Map(
    listOf(value).flatMap((entry) => {
      const loose = looseOf(entry);
      const name = toolNameOf(textOf(loose?.name));
      return name === '' ? [] : [[name, { description: textOf(loose?.description) || name }] as const];
    }),
  );
}

function toolNameOf(name: string): string {
  return name
    .trim()
    .replace(/[^A-Za-z0-9_-]+/g, '_')
    .slice(0, 64);
}

function invalid(why: string): RunnerError {
  return new RunnerError('invalid_definition', `The agent definition cannot be used: ${why}.`);
}

function looseOf(value: unknown): Loose | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Loose) : null;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value.trim() : '';
}
