/** A specification with two agents, as files of text. */
export function sampleFiles(): Record<string, string> {
  const definition = {
    name: 'Greeter',
    version: '1.0.0',
    tool_definitions: [],
    nodes: [
      {
        id: 'lead',
        type: 'Orchestrator',
        config: {
          name: 'Lead',
          description: 'coordinates',
          system_prompt: 'Coordinate the others.',
          tools: [],
        },
      },
      {
        id: 'greeter',
        type: 'Specialist',
        config: {
          name: 'GreetingAgent',
          description: 'greets',
          system_prompt: 'Greet people.',
          tools: ['clock'],
        },
      },
    ],
    edges: [{ source: 'lead', target: 'greeter', type: 'specialists' }],
  };
  return {
    '/definition.json': `${JSON.stringify(definition, null, 2)}\n`,
    '/THE_SPEC/constitution.md': '# Constitution\n\n1. Be friendly.\n2. Be short.\n',
    '/THE_SPEC/requirements.md': '# Requirements\n\n1. "Greet people"\n',
    '/THE_SPEC/plan.md': '# Plan\n\n1. Greet\n',
    '/THE_CAST/Lead.md': '# Lead\n\nCoordinate the others.\n',
    '/THE_CAST/GreetingAgent.md':
      '# GreetingAgent\n\ngreets\n\n## Tools\n\n- clock\n\n## Instructions\n\nGreet people.\n',
  };
}
