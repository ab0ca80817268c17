import tap from 'tap';
import { faultsOfAudit } from '../../chaos/check/check-audit.js';
import {
  faultsOfEnds,
  faultsOfOutcome,
  faultsOfRuns,
  type Refinement,
} from '../../chaos/check/check-outcome.js';
import type { ProposalFacts, RunFacts, Transition } from '../../chaos/check/facts.js';
import { isFault } from '../../chaos/check/logs.js';
import { faultsOfHolding, type Holding } from '../../chaos/check/memory.js';
import { takeOverTimes } from '../../chaos/take-over-times.js';
import { createTroubles } from '../../chaos/troubles.js';

const moves = (...list: [event: string, from: string | null, to: string, more?: Partial<Transition>][]) =>
  list.map(
    ([event, from, to, more], index): Transition => ({
      rowVersion: index + 1,
      event,
      from,
      to,
      attempt: 1,
      at: 1_000 * index,
      committedAt: 1_000 * index,
      fromNode: null,
      ...more,
    }),
  );
const life = moves(
  ['start', null, 'invoking'],
  ['run.streaming', 'invoking', 'streaming'],
  ['taken_over', 'streaming', 'streaming', { fromNode: 'host-7-ab' }],
  ['runtime.ended', 'streaming', 'completed'],
  ['approve', 'completed', 'resolved'],
);
const proposal = (more: Partial<ProposalFacts> = {}): ProposalFacts => {
  const transitions = more.transitions ?? life;
  return {
    id: 'p',
    workflowId: 'w',
    threadId: 't',
    status: 'resolved',
    phase: null,
    resolution: 'approved',
    attempt: 1,
    errorCode: null,
    version: transitions.at(-1)?.rowVersion ?? 0,
    ownerGeneration: 2,
    transcriptTries: 0,
    cancelRequested: false,
    files: { '/a': 'new', '/b': 'same' },
    attempts: [{ attempt: 1, jobId: 't', outcome: 'completed' }],
    ...more,
    transitions,
  };
};

tap.test('a life as it should be is without fault', async (t) => {
  t.strictSame(faultsOfAudit(proposal()), []);
  const cleared = life.map((one) => (one.rowVersion > 3 ? { ...one, rowVersion: one.rowVersion + 1 } : one));
  t.strictSame(faultsOfAudit(proposal({ transitions: cleared })), [], 'the new owner may set the count to 0');
  const written = life.map((one) => (one.rowVersion > 4 ? { ...one, rowVersion: one.rowVersion + 9 } : one));
  const kept = proposal({ transitions: written, version: 20, ownerGeneration: 4, transcriptTries: 2 });
  t.strictSame(faultsOfAudit(kept), [], 'the parts of a transcript raise the version after the end');
});

tap.test('every fault of an audit is named', async (t) => {
  const replaced = (index: number, by: Partial<Transition>) =>
    life.map((one, at) => (at === index ? { ...one, ...by } : one));
  const faulty: [string, Partial<ProposalFacts>, RegExp][] = [
    ['nothing', { transitions: [] }, /no audit/],
    [
      'an illegal transition',
      { transitions: replaced(4, { from: 'streaming' }) },
      /illegal transition approve/,
    ],
    ['an unknown event', { transitions: replaced(1, { event: 'magic' }) }, /unknown event magic/],
    ['a broken chain', { transitions: replaced(2, { from: 'reconnecting', to: 'reconnecting' }) }, /follows/],
    [
      'a transition twice',
      {
        transitions: moves(
          ['start', null, 'invoking'],
          ['cancel', 'invoking', 'invoking'],
          ['cancel', 'invoking', 'invoking'],
          ['run.cancelled', 'invoking', 'failed'],
        ),
        status: 'failed',
        ownerGeneration: 1,
      },
      /2 times cancel/,
    ],
    [
      'a gap without a take-over',
      {
        transitions: life.map((one) =>
          one.rowVersion > 1 ? { ...one, rowVersion: one.rowVersion + 1 } : one,
        ),
      },
      /versions 2 to 2 have no transition/,
    ],
    ['an older row than its audit', { version: 4 }, /the row has version 4/],
    [
      'a newer row than its audit',
      {
        status: 'processing',
        phase: 'streaming',
        transitions: life.slice(0, 2),
        version: 3,
        ownerGeneration: 1,
      },
      /the row has version 3/,
    ],
    ['a version twice', { transitions: replaced(1, { rowVersion: 1 }) }, /version 1 after 1/],
    ['an attempt that nobody opened', { transitions: replaced(3, { attempt: 2 }) }, /attempt 2 after 1/],
    ['a generation too many', { ownerGeneration: 3 }, /generation 3 after 1 take-overs/],
    ['another state in the row', { status: 'completed' }, /ends in resolved, the row is completed/],
  ];
  for (const [what, broken, wanted] of faulty)
    t.match(faultsOfAudit(proposal(broken)).join('\n'), wanted, what);
});

const refinement = (more: Partial<Refinement> = {}): Refinement => ({
  workflowId: 'w',
  reference: {
    prompt: 'x',
    failsWith: null,
    attempts: 1,
    baseFiles: { '/a': 'old', '/b': 'same' },
    files: { '/a': 'new', '/b': 'same' },
  },
  proposalId: 'p',
  decisions: [{ kind: 'approve', status: 200 }],
  ...more,
});
const draft = { revision: 2, files: { '/a': 'new', '/b': 'same' } };

/** Taken over once, given up, then taken over from so many dead owners. */
const poisoned = (deaths: number) =>
  proposal({
    status: 'failed',
    errorCode: 'poisoned',
    resolution: null,
    transitions: moves(
      ['start', null, 'invoking'],
      ['taken_over', 'invoking', 'invoking', { fromNode: 'host-1-a' }],
      ['given_up', 'invoking', 'invoking'],
      ['taken_over', 'invoking', 'invoking'],
      ...Array.from({ length: deaths }, (): [string, string, string, Partial<Transition>] => [
        'taken_over',
        'invoking',
        'invoking',
        { fromNode: 'host-2-b' },
      ]),
      ['run.failed', 'invoking', 'failed'],
    ),
  });
const untouched = { revision: 1, files: refinement().reference.baseFiles as { '/a': string; '/b': string } };

tap.test('a right outcome is without fault, and every wrong one is named', async (t) => {
  const refused = proposal({
    id: 'refused',
    status: 'failed',
    resolution: null,
    errorCode: 'runtime_unavailable',
    transitions: moves(['start', null, 'invoking'], ['start_refused', 'invoking', 'failed']),
  });
  t.strictSame(faultsOfOutcome(refinement(), [refused, proposal()], draft), []);
  t.strictSame(faultsOfOutcome(refinement({ proposalId: null, decisions: [] }), [refused], null), []);
  const undecided = refinement({ decisions: [] });
  t.strictSame(faultsOfOutcome(undecided, [poisoned(4)], untouched), [], 'four owners in a row were killed');

  const faulty: [string, Refinement, ProposalFacts[], typeof draft, RegExp][] = [
    ['two proposals', refinement(), [proposal(), proposal({ id: 'q' })], draft, /2 proposals for one/],
    ['another proposal', refinement({ proposalId: 'q' }), [proposal()], draft, /q was promised, p is there/],
    ['none', refinement(), [refused], draft, /p was promised and is not there/],
    [
      'work in hand',
      refinement(),
      [proposal({ status: 'processing', phase: 'streaming' })],
      draft,
      /still processing/,
    ],
    [
      'other files',
      refinement(),
      [proposal({ files: { '/a': 'other', '/b': 'same' } })],
      draft,
      /reference: \/a/,
    ],
    ['a missing file', refinement(), [proposal({ files: { '/a': 'new' } })], draft, /reference: \/b/],
    [
      'a failure',
      refinement(),
      [proposal({ status: 'failed', errorCode: 'lost', resolution: null })],
      { revision: 1, files: refinement().reference.baseFiles as typeof draft.files },
      /failed as lost/,
    ],
    [
      'poisoned by three deaths, and one that gave it up before',
      refinement(),
      [poisoned(3)],
      untouched,
      /failed as poisoned/,
    ],
    ['an attempt too many', refinement(), [proposal({ attempt: 2 })], draft, /took 2 attempts/],
    [
      'a cancel without effect',
      refinement(),
      [proposal({ cancelRequested: true })],
      draft,
      /a committed cancel led to/,
    ],
    ['an approval applied twice', refinement(), [proposal()], { ...draft, revision: 3 }, /revision 3/],
    [
      'an approval not applied',
      refinement(),
      [proposal()],
      { ...draft, files: { '/a': 'old', '/b': 'same' } },
      /draft is wrong/,
    ],
    [
      'two winners',
      refinement({ decisions: (['approve', 'reject'] as const).map((kind) => ({ kind, status: 200 })) }),
      [proposal()],
      draft,
      /both approve and reject/,
    ],
    [
      'a promise that was not kept',
      refinement(),
      [proposal({ resolution: 'rejected' })],
      draft,
      /the row is rejected/,
    ],
  ];
  for (const [what, one, rows, now, wanted] of faulty)
    t.match(faultsOfOutcome(one, rows, now).join('\n'), wanted, what);
  const asked = refinement({ decisions: [] });
  const failing = { ...asked, reference: { ...asked.reference, failsWith: 'scripted_failure' } };
  t.match(
    faultsOfOutcome(failing, [proposal()], draft).join('\n'),
    /resolved {2}instead of failed scripted_failure/,
    'a success that was not asked for',
  );
});

tap.test('a second run, a run that goes on and one that was not cleaned up are named', async (t) => {
  const run = (jobId: string, more: Partial<RunFacts> = {}): [string, RunFacts] => [
    jobId,
    { jobId, status: 'deleted', createdAt: 10, startedAt: 10, overAt: 20, ...more },
  ];
  const two = proposal({
    attempt: 2,
    attempts: ['t', 'u'].map((jobId, index) => ({ attempt: index + 1, jobId, outcome: 'failed' })),
  });
  t.strictSame(faultsOfRuns(two, new Map([run('t'), run('u', { createdAt: 30, overAt: 40 })])), []);
  t.match(faultsOfRuns(two, new Map([run('t'), run('u', { createdAt: 15 })])).join(), /could still write/);
  t.match(faultsOfRuns(proposal(), new Map([run('t', { overAt: null })])).join(), /goes on/);
  t.match(faultsOfRuns(proposal(), new Map([run('t', { status: 'completed' })])).join(), /not cleaned up/);
  const undecided = proposal({ status: 'completed', resolution: null });
  t.strictSame(faultsOfRuns(undecided, new Map([run('t', { status: 'completed' })])), []);
});

tap.test('an end before its commit, or of something else, is named', async (t) => {
  const seen = (more = {}) => [
    { viewer: 'v', ends: [{ at: 3_000, epoch: '1.1', status: 'completed', files: { '/a': 'h' }, ...more }] },
  ];
  t.strictSame(faultsOfEnds(proposal(), { '/a': 'h' }, seen()), []);
  t.match(faultsOfEnds(proposal(), { '/a': 'h' }, seen({ at: 2_400 })).join(), /600 ms before its commit/);
  t.match(faultsOfEnds(proposal(), { '/a': 'h' }, seen({ status: 'failed' })).join(), /end says failed/);
  t.match(faultsOfEnds(proposal(), { '/a': 'i' }, seen()).join(), /other files/);
});

tap.test('whatever is held beyond the baseline is named', async (t) => {
  const rested: Holding = {
    actors: 0,
    viewers: 0,
    database: 5,
    runtime: 2,
    descriptors: 40,
    timers: 10,
    heapMiB: 40,
  };
  t.strictSame(faultsOfHolding('one', rested, { ...rested, database: 12, heapMiB: 60 }), []);
  const all = faultsOfHolding('one', rested, {
    actors: 1,
    viewers: 2,
    database: 13,
    runtime: 30,
    descriptors: 400,
    timers: 90,
    heapMiB: 300,
  });
  for (const what of ['actors', 'viewers', 'PostgreSQL', 'runtime', 'descriptors', 'timers', 'heap'])
    t.ok(
      all.some((fault) => fault.includes(what)),
      what,
    );
});

tap.test('a log line that no failure around excuses is a fault, others are not', async (t) => {
  const unavailable = { status: 503, err: { code: 'database_unavailable' } };
  for (const fine of [
    { level: 'warn', msg: 'a commit got no answer' },
    { level: 'error', msg: 'request failed', ...unavailable },
    { level: 'error', msg: 'request failed', err: { code: 'not_ready' } },
    { level: 'fatal', msg: 'the start failed', err: { code: '57P03' } },
  ])
    t.notOk(isFault(fine), fine.msg);
  for (const fault of [
    { level: 'error', msg: 'a thread actor broke' },
    { level: 'error', msg: 'request failed', status: 500, err: { code: 'internal' } },
    { level: 'error', msg: 'run lost' },
    { level: 'error', msg: 'migrating', migration: 'relation "runs" does not exist' },
    { level: 'fatal', msg: 'stopping after an error' },
  ])
    t.ok(isFault(fault), fault.msg);
});

tap.test(
  'a take-over is timed from the kill of its owner, and stands apart where it was not held up',
  async (t) => {
    const kills = [{ part: 'orchestrator-1', pid: 7, at: 500 }];
    let now = 600;
    const troubles = createTroubles(() => now);
    const timed = () => takeOverTimes([proposal()], kills, troubles);
    t.strictSame(timed(), { all: [1_500], undisturbed: [1_500] });
    const frozen = troubles.begin('orchestrator-2');
    t.strictSame(timed().undisturbed, [1_500], 'one replica is enough');
    now = 700;
    troubles.begin('orchestrator-3');
    t.strictSame(timed().undisturbed, []);
    frozen();
    t.strictSame(timed().undisturbed, [], 'what is over held it up all the same');
  },
);
