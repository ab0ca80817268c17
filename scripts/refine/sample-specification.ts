/** A small agent's specification to try a refinement on: one agent that greets. */

const definition = {
  name: 'Greeting workflow',
  version: '1.0.0',
  tool_definitions: [],
  nodes: [
    {
      id: 'lead',
      type: 'Orchestrator',
      config: {
        name: 'Lead',
        description: 'Takes the message and hands it on.',
        system_prompt: 'Coordinate the agents; answer nothing yourself.',
        tools: [],
      },
    },
    {
      id: 'greeter',
      type: 'Specialist',
      config: {
        name: 'GreetingAgent',
        description: 'Greets people by their name.',
        system_prompt: 'Greet people, warmly and briefly.',
        tools: [],
      },
    },
  ],
  edges: [{ source: 'lead', target: 'greeter', type: 'specialists' }],
};

const lines = (...text: string[]): string => `${text.join('\n')}\n`;

export const sampleWorkflow = {
  name: 'Greeting workflow',
  description: 'A sample: one agent that greets people by their name.',
  files: {
    '/definition.json': `${JSON.stringify(definition, null, 2)}\n`,
    '/THE_SPEC/constitution.md': lines(
      '# Constitution',
      '',
      'What every agent of this workflow keeps to, whatever it is asked.',
      '',
      '1. Say plainly what is not known; never invent a fact.',
      '2. Ask for no more about a person than the task needs.',
      '3. Use a tool only where the answer depends on it, and name the source.',
    ),
    '/THE_SPEC/requirements.md': lines(
      '# Requirements',
      '',
      '- R1 The agent greets a person by the name that was given.',
      '- R2 Without a name it asks for one, once.',
      "- R3 It answers in the person's language.",
      '- R4 A greeting has at most two sentences.',
    ),
    '/THE_SPEC/plan.md': lines(
      '# Plan',
      '',
      '| step | agent | result |',
      '|---|---|---|',
      '| 1 | GreetingAgent | a greeting that keeps R1 to R4 |',
      '',
      'There are no tools yet.',
    ),
    '/THE_CAST/GreetingAgent.md': lines(
      '# GreetingAgent',
      '',
      '## Role',
      'You greet people, warmly and briefly.',
      '',
      '## Steps',
      '1. Find the name in the message; ask for it if there is none.',
      '2. Greet in the language of the message.',
      '',
      '## Tools',
      'None.',
    ),
  },
};
