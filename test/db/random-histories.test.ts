import fc from 'fast-check';
import { sql } from 'slonik';
import t from 'tap';
import { z } from 'zod';
import { grantViewer, revokeViewer } from '../../src/db/access.js';
import { sha256Of } from '../../src/db/conflict-rule.js';
import { approveProposal, rejectProposal, requestCancel } from '../../src/db/decisions.js';
import { deleteDraft, findDraft, putDraft } from '../../src/db/drafts.js';
import { createPool } from '../../src/db/pool.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import { noRow } from '../../src/db/statement.js';
import { publishVersion } from '../../src/db/versions.js';
import { createTestDatabase } from '../support/database.js';
import { createDraftModel } from '../support/draft-model.js';
import { completeWith, seedProposal, seedWorkflow, textsOf } from '../support/seed.js';

const { url } = await createTestDatabase(t);
/** Slonik tries a deadlocked transaction again, so only the pool hears of it. */
const deadlocks: string[] = [];
const openPool = async () => {
  const opened = await createPool({
    url,
    maximumPoolSize: 10,
    applicationName: 'histories',
    onQuery: (name, _, error) => {
      if (error !== null && 'code' in error && error.code === '40P01') deadlocks.push(name);
    },
  });
  t.teardown(() => opened.end());
  return opened;
};
const pool = await openPool();
const second = await openPool();

const paths = ['/a', '/b', '/c'];
const path = fc.constantFrom(...paths);
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
type Texts = Record<string, string>;

const same = (actual: unknown, expected: unknown, what: string) => {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: ${left} instead of ${right}`);
};

const play = async (steps: readonly Step[]) => {
  const first = { '/a': '1', '/b': '2' };
  const workflow = await seedWorkflow(pool, { files: first });
  const model = createDraftModel(first);
  const rows: ThreadRow[] = [];
  let before: Texts = first;

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
    for (const name of side === 'proposal' ? [] : paths) {
      // The promise itself, without the model: what moved was still what the run had started from.
      if (before[name] !== after[name])
        same(before[name], proposal.base.get(name), `${name} was overwritten`);
    }
  };

  for (const [index, move] of steps.entries()) {
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
    // What stands now is what the next approval finds; nothing else looks at it in between.
    const next = steps[index + 1];
    if (next !== undefined && next.kind !== 'approve') continue;
    const draft = await findDraft(pool, workflow);
    const expected = model.state();
    same(textsOf(draft), expected.texts, `draft after ${move.kind}`);
    if (draft) same(draft.revision, expected.revision, `revision after ${move.kind}`);
    before = expected.texts ?? {};
  }
};

t.test('in 600 random histories nothing is overwritten or brought back silently (rule 6)', async (t) => {
  const history = fc.array(step, { minLength: 3, maxLength: 9 });
  // Eight histories at a time, each on its own workflow, share the round trips' waiting.
  const eight = fc.asyncProperty(fc.array(history, { minLength: 8, maxLength: 8 }), async (histories) => {
    await Promise.all(histories.map(play));
  });
  await fc.assert(eight, { numRuns: 75 });
  t.pass('as the model says');
});

/** Each file of a draft that was written: what was there before, and under which revision. */
const writtenSchema = z.object({
  path: z.string(),
  revision: z.number(),
  hashBefore: z.string().nullable(),
  revisionBefore: z.number(),
  hash: z.string().nullable(),
});
type Written = z.infer<typeof writtenSchema>;

/** A trigger notes it, in the transaction of the write: what callers are told cannot say what they overwrote. */
const noteWrites = async () => {
  for (const statement of [
    sql.type(noRow)`
      CREATE TABLE written (draft_id uuid, path text, revision integer, hash_before text, revision_before integer, hash text)`,
    sql.type(noRow)`
      CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN
          INSERT INTO written VALUES (NEW.draft_id, NEW.path, NEW.revision, NULL, 0, NEW.sha256);
        ELSE
          INSERT INTO written VALUES (NEW.draft_id, NEW.path, NEW.revision, OLD.sha256, OLD.revision, NEW.sha256);
        END IF;
        RETURN NULL;
      END $$`,
    sql.type(noRow)`
      CREATE TRIGGER note_write AFTER INSERT OR UPDATE ON draft_files FOR EACH ROW EXECUTE FUNCTION note_write()`,
  ]) {
    await pool.query(statement);
  }
};

/** What a caller was told that it wrote. */
type Told =
  | { kind: 'put'; files: Record<string, string | null>; baseRevision: number; onDraft: boolean }
  | { kind: 'approve'; proposal: Shared; files: readonly string[]; decided: boolean };

interface Shared {
  row: ThreadRow;
  base: Record<string, string>;
  generated: Record<string, string | null>;
}

const approvalSchema = z.object({ details: z.object({ files: z.array(z.string()) }) });
const baseSchema = z.object({ base: z.record(z.string()) });
const hashOf = (text: string | null | undefined) => (text == null ? null : sha256Of(text));

/**
 * Histories at once on one workflow, by turns over two pools, beside runs that begin, end and are cancelled, and people
 * who are let in and turned away.
 */
const playTogether = async (histories: readonly (readonly Step[])[]) => {
  const workflow = await seedWorkflow(pool, { files: { '/a': '1', '/b': '2' } });
  const { userId } = workflow;
  const told = new Map<number, Told>();
  const proposals: Shared[] = [];

  const turn = async (steps: readonly Step[], index: number) => {
    const db = index % 2 === 0 ? pool : second;
    for (const move of steps) {
      const proposal = 'pick' in move ? proposals[(move.pick + index) % proposals.length] : undefined;
      const proposalId = proposal?.row.proposalId ?? '';
      if (move.kind === 'put') {
        // Taking away only may find nothing to do: then the revision that is answered is somebody else's.
        if (Object.values(move.files).every((content) => content === null)) continue;
        const draft = await findDraft(db, workflow);
        const baseRevision = draft ? Math.max(0, draft.revision - move.stale) : 0;
        const put = await putDraft(db, { ...workflow, baseRevision, files: move.files });
        if (put.kind === 'ok') {
          told.set(put.draft.revision, { ...move, kind: 'put', baseRevision, onDraft: draft !== null });
        } else same(put.kind, 'conflict', 'put');
      } else if (move.kind === 'run') {
        const row = await seedProposal(db, workflow);
        const { base } = await db.one(sql.type(baseSchema)`
          SELECT base_hashes AS base FROM proposals WHERE id = ${row.proposalId}`);
        if (move.pause) await requestCancel(db, { proposalId: row.proposalId, userId });
        else await completeWith(db, row, move.files);
        proposals.push({ row, base, generated: move.files });
      } else if (move.kind === 'delete') await deleteDraft(db, workflow);
      else if (move.kind === 'publish') await publishVersion(db, workflow);
      else if (proposal === undefined) continue;
      else if (move.kind === 'complete') {
        const change = { proposalId, userId, viewerId: `viewer ${index}` };
        await grantViewer(db, change);
        await revokeViewer(db, change);
      } else if (move.kind === 'reject') await rejectProposal(db, { proposalId, userId });
      else {
        const { side } = move;
        const names = Object.keys(proposal.generated);
        const resolutions = side ? Object.fromEntries(names.map((name) => [name, side])) : undefined;
        const answer = await approveProposal(db, { proposalId, userId, resolutions });
        if (answer.kind !== 'ok' || !answer.first || answer.filesApplied === 0) continue;
        const { details } = await db.one(sql.type(approvalSchema)`
          SELECT details FROM proposal_transitions WHERE proposal_id = ${proposalId} AND event = 'approve'`);
        const decided = side === 'proposal';
        told.set(answer.draftRevision, { kind: 'approve', proposal, files: details.files, decided });
      }
    }
  };
  await Promise.all(histories.map(turn));

  const written = await pool.any(sql.type(writtenSchema)`
    SELECT n.path, n.revision, n.hash_before AS "hashBefore", n.revision_before AS "revisionBefore", n.hash
    FROM written n JOIN drafts d ON d.id = n.draft_id WHERE d.workflow_id = ${workflow.workflowId} AND n.revision > 1`);
  for (const write of written) judge(write, told.get(write.revision));
};

const judge = (write: Written, by: Told | undefined) => {
  const { path, hash, hashBefore, revisionBefore } = write;
  const what = `${path} in revision ${write.revision}`;
  // Deleting a draft, and making one anew from a version, answer no revision; they may not overwrite a text either.
  if (by === undefined) return same(hash === null || hashBefore === null, true, what);
  if (by.kind === 'put') {
    same(hash, hashOf(by.files[path]), what);
    if (by.onDraft && by.baseRevision > 0) same(revisionBefore <= by.baseRevision, true, `${what} was stale`);
    return;
  }
  same(by.files.includes(path), true, `${what} was asked for`);
  same(hash, hashOf(by.proposal.generated[path]), what);
  if (!by.decided) same(hashBefore, by.proposal.base[path] ?? null, `${what} overwrote`);
};

t.test(
  'in 400 random histories at once, five on each workflow, none overwrites another and none is deadlocked (rule 5)',
  async (t) => {
    await noteWrites();
    const history = fc.array(step, { minLength: 3, maxLength: 7 });
    const five = fc.asyncProperty(fc.array(history, { minLength: 5, maxLength: 5 }), playTogether);
    await fc.assert(five, { numRuns: 80 });
    t.strictSame(deadlocks, []);
  },
);
