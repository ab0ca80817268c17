import { test } from 'tap';
import { createAgentCache } from '../../src/agent/agent-cache.js';
import { warmUpAgents } from '../../src/agent/warm-up.js';
import { sampleFiles } from '../models/sample-specification.js';
import { completedTexts, createTestRunner, inputOf, watch } from './runner-harness.js';

test('Two runs on one agent keep their files and their readers apart', async (t) => {
  const { runner } = await createTestRunner(t);
  const spoken = watch(runner, inputOf('Add web search', sampleFiles()));
  const silent = watch(runner, inputOf('Add web search', sampleFiles()));
  spoken.handle.message('Add e-mail sending to the GreetingAgent');
  t.match(completedTexts(await spoken.done)['/definition.json'], /"send_email"/);
  const texts = completedTexts(await silent.done);
  t.match(texts['/definition.json'], /"web_search"/);
  t.notMatch(texts['/definition.json'], /"send_email"/);
});

test('An agent is built once for a definition, and anew after it was forgotten, worn out or pushed out', async (t) => {
  let built = 0;
  const cache = createAgentCache(async () => ++built);
  t.equal(await cache.get({}), 1);
  t.equal(await cache.get({}), 1);
  t.equal(await cache.get({ name: 'another' }), 2);
  cache.forget({});
  t.equal(await cache.get({}), 3);
  for (let run = 2; run < 500; run++) await cache.get({});
  t.equal(await cache.get({}), 3);
  t.equal(await cache.get({}), 4, 'after 500 runs');
  for (let other = 0; other < 32; other++) await cache.get({ other });
  t.equal(await cache.get({}), 37, 'after 32 others');
});

test('An agent that could not be built is tried again', async (t) => {
  let tries = 0;
  const cache = createAgentCache(async () => {
    if (++tries === 1) throw new Error('not now');
    return tries;
  });
  await t.rejects(cache.get({}), /not now/);
  t.equal(await cache.get({}), 2);
});

test('Warming up ends by itself, and soon where it is given no time', async (t) => {
  await t.resolves(warmUpAgents(60_000));
  await t.resolves(warmUpAgents(1));
});
