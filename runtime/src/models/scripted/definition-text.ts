type Loose = Record<string, unknown>;

/** One agent inside the text of a definition, with the places where it can be edited. */
export interface AgentAt {
  id: string | null;
  name: string;
  leads: boolean;
  description: string;
  /** Path to the object that holds name, prompt and tools. */
  path: (string | number)[];
  prompt: string | null;
  tools: string[] | null;
}

/** What the script knows of a definition. */
export interface DefinitionView {
  agents: AgentAt[];
  /** Path to the list of nodes, and whether its entries hold their data in `config`, in `data` or flat. */
  nodesPath: string[];
  inner: 'config' | 'data' | null;
  edgesPath: string[] | null;
  toolDefinitions: unknown[] | null;
  edges: unknown[];
  version: string | null;
}

/** Reads a definition; null where it is no JSON object with agents. */
export function definitionIn(text: string): DefinitionView | null {
  let definition: Loose | null;
  try {
    definition = looseOf(JSON.parse(text));
  } catch {
    return null;
  }
  const graph = looseOf(definition?.graph);
  const inGraph = !Array.isArray(definition?.nodes) && Array.isArray(graph?.nodes);
  const holder = inGraph ? graph : definition;
  const root = inGraph ? ['graph'] : [];
  if (!definition || !holder || !Array.isArray(holder.nodes) || holder.nodes.length === 0) return null;
  const nodes = holder.nodes.map(looseOf);
  const inner = nodes.some((node) => looseOf(node?.config))
    ? 'config'
    : nodes.some((node) => looseOf(node?.data))
      ? 'data'
      : null;
  const agents = nodes.flatMap((node, at) => {
    const key = looseOf(node?.config) ? 'config' : looseOf(node?.data) ? 'data' : null;
    const data = key === null ? node : looseOf(node?.[key]);
    if (!node || !data || typeof data.name !== 'string' || data.name === '') return [];
    return [
      {
        id: typeof node.id === 'string' ? node.id : null,
        name: data.name,
        leads:
          node.id === holder.entryPoint ||
          [node.type, data.type, data.displayRole].some((role) => /^orchestrator$/i.test(String(role))),
        description: typeof data.description === 'string' ? data.description : '',
        path: [...root, 'nodes', at, ...(key === null ? [] : [key])],
        prompt: typeof data.system_prompt === 'string' ? data.system_prompt : null,
        tools: Array.isArray(data.tools) ? data.tools.map(String) : null,
      },
    ];
  });
  if (agents.length === 0) return null;
  return {
    agents,
    nodesPath: [...root, 'nodes'],
    inner,
    edgesPath: Array.isArray(holder.edges) ? [...root, 'edges'] : null,
    edges: Array.isArray(holder.edges) ? holder.edges : [],
    toolDefinitions: Array.isArray(definition.tool_definitions) ? definition.tool_definitions : null,
    version: typeof definition.version === 'string' ? definition.version : null,
  };
}

/** The agent that a prompt means, however it writes the name. */
export function agentNamed(agents: readonly AgentAt[], name: string): AgentAt | null {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const bare = (text: string) => plain(text).replace(/agent$/, '');
  return (
    agents.find((agent) => plain(agent.name) === plain(name)) ??
    agents.find((agent) => bare(agent.name) === bare(name) && bare(name) !== '') ??
    null
  );
}

/** The page of an agent, made from its definition. */
export function castTextOf(agent: Pick<AgentAt, 'name' | 'description' | 'prompt' | 'tools'>): string {
  const tools = (agent.tools ?? []).map((tool) => `- ${tool}`);
  return [
    `# ${agent.name}`,
    '',
    ...(agent.description === '' ? [] : [agent.description, '']),
    '## Tools',
    '',
    ...(tools.length === 0 ? ['None.'] : tools),
    '',
    '## Instructions',
    '',
    agent.prompt ?? '',
    '',
  ].join('\n');
}

/** The version with its minor number moved by `step`; unchanged where it is no such version or would fall below 0. */
export function versionMoved(version: string, step: 1 | -1): string {
  const parts = /^(v?\d+\.)(\d+)(.*)$/.exec(version);
  if (parts === null) return version;
  const minor = Number(parts[2]) + step;
  return minor < 0 ? version : `${parts[1]}${minor}${parts[3]}`;
}

function looseOf(value: unknown): Loose | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Loose) : null;
}
