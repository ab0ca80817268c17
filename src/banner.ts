/** What `npm start` says when it is ready: where, with which token, and what to try. */
export function banner(facts: { address: string; token: string; metricsPort: number }): string {
  const { address, token, metricsPort } = facts;
  return `
IDE orchestrator is ready

  address   ${address}
  contract  ${address}/docs
  metrics   http://127.0.0.1:${metricsPort}/metrics
  token     ${token}

Try

  npm run refine -- "Add web search capability to the agent"
  npm run refine -- "Add web search capability to the agent" --approve --publish
  curl -H "Authorization: Bearer ${token}" ${address}/api/workflows

Ctrl-C stops everything.
`;
}
