import { test } from 'tap';
import { wishOf } from '../../src/models/scripted/wish.js';

const table: [prompt: string, kind: string, about: string | null, target: string | null][] = [
  ['Add web search capability to the agent', 'add-capability', 'web_search', null],
  ['add internet search.', 'add-capability', 'web_search', null],
  ['Please add e-mail sending to the GreetingAgent', 'add-capability', 'send_email', 'GreetingAgent'],
  [
    'Could you please add a translation feature to the Greeting Agent?',
    'add-capability',
    'translate_text',
    'Greeting Agent',
  ],
  ['Give the GreetingAgent access to the database', 'add-capability', 'query_database', 'GreetingAgent'],
  ['Add calendar integration', 'add-capability', 'calendar', null],
  ['I want you to include summaries of long documents', 'add-capability', 'summarize_text', null],
  ['Add support for Klingon greetings', 'add-capability', 'klingon_greetings', null],
  [
    'Add support for Klingon greetings to the GreetingAgent',
    'add-capability',
    'klingon_greetings',
    'GreetingAgent',
  ],
  ['Add the ability to juggle to the agent', 'add-capability', 'juggle', null],
  ['Create a haiku mode', 'add-capability', 'haiku_mode', null],
  ['Remove web search from the agent', 'remove-capability', 'web_search', null],
  [
    'Delete the e-mail capability from the GreetingAgent!',
    'remove-capability',
    'send_email',
    'GreetingAgent',
  ],
  ['Get rid of Klingon greetings', 'remove-capability', 'klingon_greetings', null],
  ['Add a fact checking agent', 'add-agent', null, 'fact checking agent'],
  ['Create an agent called Scout that finds sources', 'add-agent', null, 'Scout'],
  ['Add an agent that checks facts', 'add-agent', null, 'checks facts agent'],
  ['Remove the fact checking agent', 'remove-agent', null, 'fact checking agent'],
  ['Rename GreetingAgent to WelcomeAgent', 'rename-agent', null, 'GreetingAgent'],
  ['Rename the Greeting agent to Host', 'rename-agent', null, 'Greeting'],
  ['Create a travel planner workflow', 'create-workflow', null, null],
  ['Build an assistant for a book shop', 'create-workflow', null, null],
  ['Make the tone more formal', 'instruct', null, null],
  ['The GreetingAgent should never use exclamation marks', 'instruct', null, 'GreetingAgent'],
  ['???', 'instruct', null, null],
];

for (const [prompt, kind, tool, target] of table) {
  test(`"${prompt}" is understood as ${kind}`, async (t) => {
    const wish = wishOf(prompt);
    t.equal(wish.kind, kind);
    t.equal(wish.capability?.tool ?? null, tool);
    t.equal(wish.target, target);
    t.not(wish.intent, '');
  });
}

test('The context below its heading is no part of the request, but names the file looked at', async (t) => {
  const wish = wishOf(
    'Add web search\n\n## Context file\n\n/THE_CAST/GreetingAgent.md\n\n## Selection\n\nremove all',
  );
  t.equal(wish.text, 'Add web search');
  t.equal(wish.contextPath, '/THE_CAST/GreetingAgent.md');
});
