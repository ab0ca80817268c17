import fc from 'fast-check';
import t from 'tap';
import { approveProposal, rejectProposal } from '../../src/db/decisions.js';
import { deleteDraft, findDraft, putDraft } from '../../src/db/drafts.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { publishVersion } from '../../src/db/versions.js';
import { createTestDatabase } from '../support/database.js';
import { createDraftModel } from '../support/draft-model.js';
import { completeWith, seedProposal, seedWorkflow, textsOf } from '../support/seed.js';

const { pool } = await createTestDatabase(t);

const path = fc.constantFrom('/a', '/b', '/c');
const text = fc.constantFrom('1', '2', '3');
const change = fc.dictionary(path, fc.option(text), { minKeys: 1, maxKeys: 3, noNullPrototype: true });
const pick = fc.nat({ max: 5 });

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('put' as const), files: change, stale: fc.nat({ max: 2 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('run' as const), files: change, pause: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('complete' as const), files: change, pick }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('approve' as const),
      pick,
      only: fc.option(path),
      side: fc.constantFrom(null, null, 'proposal' as const, 'draft' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reject' as const), pick }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('publish' as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const same = (actual: unknown, expected: unknown, what: string) => {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: ${left} instead of ${right}`);
};

const play = async (steps: readonly Step[]) => {
  const first = { '/a': '1', '/b': '2' };
  const workflow = await seedWorkflow(pool, { files: first });
  const model = createDraftModel(first);
  const rows: ThreadRow[] = [];

  const with_ = (pick: number, status: string): number => {
    const fitting = [...model.proposals.keys()].filter((index) => model.proposals[index]?.status === status);
    return fitting[pick % fitting.length] ?? -1;
  };
  const complete = async (index: number, files: Record<string, string | null>) => {
    const row = rows[index];
    if (!row) return;
    model.complete(index, files);
    await completeWith(pool, row, files);
  };

  const approve = async (index: number, only: string | null, side: 'proposal' | 'draft' | null) => {
    const [row, proposal] = [rows[index], model.proposals[index]];
    if (!row || !proposal) return;
    const all = Object.keys(proposal.generated);
    const files = only !== null && all.includes(only) ? [only] : undefined;
    const before = textsOf(await findDraft(pool, workflow)) ?? {};
    const expected = model.approve(index, files ?? all, side);
    const answer = await approveProposal(pool, {
      proposalId: row.proposalId,
      userId: workflow.userId,
      files,
      resolutions: side ? Object.fromEntries(all.map((name) => [name, side])) : undefined,
    });
    same(
      answer.kind === 'conflict' ? answer.conflicts : answer.kind === 'ok' && answer.filesApplied,
      expected,
      'approve',
    );
    const after = textsOf(await findDraft(pool, workflow)) ?? {};
    for (const name of side === 'proposal' ? [] : ['/a', '/b', '/c']) {
      // The promise itself, without the model: what moved was still what the run had started from.
      if (before[name] !== after[name])
        same(before[name], proposal.base.get(name), `${name} was overwritten`);
    }
  };

  for (const move of steps) {
    if (move.kind === 'put') {
      const base = model.hasDraft() || move.stale > 0 ? Math.max(0, model.revision() - move.stale) : 0;
      const expected = model.put(base, move.files);
      const put = await putDraft(pool, { ...workflow, baseRevision: base, files: move.files });
      same(put.kind === 'conflict' ? put.conflicts : put.kind, expected, 'put');
    } else if (move.kind === 'run') {
      model.start();
      rows.push(await seedProposal(pool, workflow));
      if (!move.pause) await complete(rows.length - 1, move.files);
    } else if (move.kind === 'complete') {
      await complete(with_(move.pick, 'processing'), move.files);
    } else if (move.kind === 'approve') {
      await approve(with_(move.pick, 'completed'), move.only, move.side);
    } else if (move.kind === 'reject') {
      const row = rows[with_(move.pick, 'completed')];
      if (!row) continue;
      model.reject(rows.indexOf(row));
      same((await rejectProposal(pool, { ...row, userId: workflow.userId })).kind, 'ok', 'reject');
    } else if (move.kind === 'delete') {
      same(await deleteDraft(pool, workflow), model.deleteDraft() ? 'ok' : 'no_draft', 'delete');
    } else {
      same((await publishVersion(pool, workflow)) !== 'no_draft', model.publish(), 'publish');
    }
    const draft = await findDraft(pool, workflow);
    const expected = model.state();
    same(textsOf(draft), expected.texts, `draft after ${move.kind}`);
    if (draft) same(draft.revision, expected.revision, `revision after ${move.kind}`);
  }
};

t.test(
  'in 200 random histories nothing is overwritten or brought back silently',
  { timeout: 120_000 },
  async (t) => {
    const history = fc.array(step, { minLength: 4, maxLength: 12 });
    // Eight histories at a time, each on its own workflow, share the round trips' waiting.
    const eight = fc.asyncProperty(fc.array(history, { minLength: 8, maxLength: 8 }), async (histories) => {
      await Promise.all(histories.map(play));
    });
    await fc.assert(eight, { numRuns: 25 });
    t.pass('as the model says');
  },
);
