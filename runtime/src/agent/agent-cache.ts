import { createHash } from 'node:crypto';

import type { RunInput } from '../agent-runner.js';

type Definition = RunInput['agent_definition'];

/** Agents that are built already, by their definition. */
export interface AgentCache<Agent> {
  /** Builds it where it is not there; rejects where it cannot be built, and tries again the next time. */
  get(definition: Definition): Promise<Agent>;
  /** The next run of the definition gets an agent that no run has used. */
  forget(definition: Definition): void;
}

/** Definitions that are kept at once; almost all runs are of one. */
const kept = 32;
/** The library's middleware learns a little from the conversations that it sees: nothing of it stays for ever. */
const runsPerAgent = 500;

/**
 * Building an agent costs more than the whole way to its first token, and what is built holds nothing of
 * a run: the thread, its state and its signal come with each call.
 */
export function createAgentCache<Agent>(
  build: (definition: Definition) => Promise<Agent>,
): AgentCache<Agent> {
  // Insertion order is the order of use.
  const agents = new Map<string, { agent: Promise<Agent>; runs: number }>();

  return {
    get(definition) {
      const key = keyOf(definition);
      let entry = agents.get(key);
      if (entry === undefined || entry.runs >= runsPerAgent) {
        const agent = build(definition);
        agent.catch(() => agents.delete(key));
        entry = { agent, runs: 0 };
      }
      entry.runs += 1;
      agents.delete(key);
      agents.set(key, entry);
      for (const oldest of agents.keys()) {
        if (agents.size <= kept) break;
        agents.delete(oldest);
      }
      return entry.agent;
    },
    forget: (definition) => void agents.delete(keyOf(definition)),
  };
}

/** A definition may be megabytes long; only its digest is kept. */
function keyOf(definition: Definition): string {
  return createHash('sha256').update(JSON.stringify(definition)).digest('base64');
}
