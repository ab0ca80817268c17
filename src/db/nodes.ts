import { type CommonQueryMethods, sql } from 'slonik';
import { z } from 'zod';
import { named, noRow } from './statement.js';

const nodeRow = z.object({ id: z.string(), beat: z.coerce.number(), runtimeReachable: z.boolean() });
export type NodeRow = z.infer<typeof nodeRow>;

/** Every registered replica with its beat (`guarantees.md` 12). */
export const listNodes = async (db: CommonQueryMethods): Promise<NodeRow[]> => [
  ...(await db.any(named('list_nodes', nodeRow)`
    SELECT id, beat, runtime_reachable AS "runtimeReachable" FROM nodes`)),
];

/** Forgets dead replicas that no unfinished proposal names any more. */
export const forgetNodes = async (
  db: CommonQueryMethods,
  input: { readonly ids: readonly string[] },
): Promise<void> => {
  await db.query(named('forget_nodes', noRow)`
    DELETE FROM nodes n WHERE n.id = ANY(${sql.array([...input.ids], 'text')})
      AND NOT EXISTS (SELECT 1 FROM proposals p WHERE p.status = 'processing' AND p.owner_node = n.id)`);
};
