import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Reference } from './check/check-outcome.js';
import { textsOf } from './check/read-facts.js';
import type { Api } from './load/api.js';
import type { Wish } from './load/prompts.js';

/** What each prompt leads to on healthy parts, from one run each. */
export function findReferences(api: Api, wishes: readonly Wish[], signal: AbortSignal): Promise<Reference[]> {
  return Promise.all(
    wishes.map(async (wish): Promise<Reference> => {
      const { prompt, failsWith, attempts, files: baseFiles } = wish;
      if (failsWith !== null) return { prompt, failsWith, attempts, baseFiles, files: null };
      const post = (path: string, body: object) =>
        api.call({ user: 'ref', method: 'POST', path, body, key: randomUUID(), signal });
      const workflow = await post('/api/workflows', { name: 'reference', files: baseFiles });
      const started = await post(`/api/workflows/${String(workflow.body.id)}/refinements`, {
        // The pace changes nothing of the outcome.
        user_prompt: prompt.replace(/\[\[slow:\d+\]\]/, '[[slow:1]]'),
      });
      const path = `/api/proposals/${String(started.body.proposal_id)}`;
      for (;;) {
        const { body } = await api.call({ user: 'ref', method: 'GET', path, signal });
        if (body.status === 'completed') {
          const files = textsOf(body.generated_files as Parameters<typeof textsOf>[0]);
          return { prompt, failsWith, attempts, baseFiles, files };
        }
        if (body.status !== 'processing')
          throw new Error(`The reference run of "${prompt}" is ${String(body.status)}`);
        await wait(200, undefined, { signal });
      }
    }),
  );
}
