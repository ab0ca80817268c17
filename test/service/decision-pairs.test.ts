import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { approveProposal, rejectProposal } from '../../src/db/decisions.js';
import { createPool } from '../../src/db/pool.js';
import { type SeededProposal, seedManyCompleted } from '../support/seed.js';
import { createHouse } from './support/house.js';

const overHttp = 150;
const byStatement = 850;
/** Pairs that race side by side, each on a workflow of its own. */
const atOnce = 8;

const house = await createHouse(t, {}, { http: { requestsPerMinute: 100_000 } });
const other = await house.more();
const second = await createPool({ url: house.databaseUrl, maximumPoolSize: 8, applicationName: 'second' });
t.teardown(() => second.end());

type Answer = 'done' | 'already_resolved';
/** Asks one of the two replicas. */
type Ask = (replica: 0 | 1, proposal: SeededProposal) => Promise<Answer>;

const call = (decision: 'approve' | 'reject'): Ask => {
  return async (replica, { proposalId }) => {
    const answer = await (replica === 0 ? house.replica : other).call(
      'ann',
      'POST',
      `/api/proposals/${proposalId}/${decision}`,
    );
    if (answer.status === 200) return 'done';
    if (answer.status === 409 && answer.body.code === 'already_resolved') return 'already_resolved';
    throw new Error(`${decision} is ${answer.status} ${JSON.stringify(answer.body)}`);
  };
};
const state = (decide: typeof approveProposal | typeof rejectProposal): Ask => {
  return async (replica, { proposalId }) => {
    const answer = await decide(replica === 0 ? house.pool : second, { proposalId, userId: 'ann' });
    if (answer.kind === 'ok') return 'done';
    if (answer.kind === 'already_resolved') return 'already_resolved';
    throw new Error(`the answer is ${answer.kind}`);
  };
};

/** Races each pair, which of the two is asked first and where taking turns; answers who won. */
async function race(proposals: readonly SeededProposal[], approve: Ask, reject: Ask) {
  const won = new Map<string, string>();
  const next = proposals.entries();
  const work = async () => {
    for (const [index, proposal] of next) {
      const [here, there] = index % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const);
      const asked = [() => approve(here, proposal), () => reject(there, proposal)];
      if (index % 4 > 1) asked.reverse();
      const answers = await Promise.all(asked.map((ask) => ask()));
      if (index % 4 > 1) answers.reverse();
      if (answers.filter((answer) => answer === 'done').length !== 1) {
        throw new Error(`not one winner: ${answers}`);
      }
      won.set(proposal.proposalId, answers[0] === 'done' ? 'approved' : 'rejected');
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return won;
}

const outcome = z.object({
  id: z.string(),
  resolution: z.string().nullable(),
  version: z.number(),
  decisions: z.number(),
  cleanUps: z.number(),
  content: z.string(),
  revision: z.number(),
});

t.test(
  'of 1,000 pairs of approve and reject at once, over two replicas, each has one winner and one audit row (rule 3)',
  async (t) => {
    const seed = { userId: 'ann', path: '/a.md', before: 'one', after: 'two' };
    const proposals = await seedManyCompleted(house.pool, { count: overHttp + byStatement, ...seed });
    const won = new Map([
      ...(await race(proposals.slice(0, overHttp), call('approve'), call('reject'))),
      ...(await race(proposals.slice(overHttp), state(approveProposal), state(rejectProposal))),
    ]);
    const rows = await house.pool.any(sql.type(outcome)`
      SELECT p.id, p.resolution, p.version, f.content, w.draft_revision AS revision,
             (SELECT count(*) FROM proposal_transitions n WHERE n.proposal_id = p.id AND n.to_state = 'resolved') AS decisions,
             (SELECT count(*) FROM outbox o WHERE o.job_id = p.thread_id)
               + (SELECT count(*) FROM attempts a WHERE a.proposal_id = p.id AND a.cleaned_at IS NOT NULL) AS "cleanUps"
      FROM proposals p JOIN workflows w ON w.id = p.workflow_id JOIN draft_files f ON f.draft_id = p.draft_id`);
    t.equal(rows.length, overHttp + byStatement);
    const wrong = rows.filter((row) => {
      const approved = won.get(row.id) === 'approved';
      return (
        row.resolution !== won.get(row.id) ||
        row.version !== 3 ||
        row.decisions !== 1 ||
        row.cleanUps !== 1 ||
        row.content !== (approved ? 'two' : 'one') ||
        row.revision !== (approved ? 2 : 1)
      );
    });
    t.strictSame(wrong, []);
    const approvals = [...won.values()].filter((winner) => winner === 'approved').length;
    t.ok(approvals > 0 && approvals < won.size, `${approvals} were approved`);
  },
);
