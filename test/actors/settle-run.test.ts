import type { CommonQueryMethods } from 'slonik';
import t from 'tap';
import { type SettleDeps, settleRun } from '../../src/actors/settle-run.js';
import type { JournalOutcome } from '../../src/actors/transition-journal.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import type { LastFrames } from '../../src/streams/released-log.js';
import type { StateResult } from '../../src/streams/runtime-client.js';

const files = { '/a.md': { content: ['two'] } };
const stateBytes = Buffer.from(JSON.stringify({ seq: 4, event_type: 'on_state_update', data: { files } }));
const row = (status: ThreadRow['status']) => ({ status }) as ThreadRow;

/** The commits come to these outcomes, one after the other; what viewers are told is written down. */
function bench(
  outcomes: JournalOutcome[],
  overrides: Partial<SettleDeps> = {},
  held = [1, 2, 3, 4].map((number) => ({ number, bytes: stateBytes })),
) {
  const told: LastFrames[] = [];
  const committed: unknown[] = [];
  const lacking: unknown[] = [];
  let appended = 0;
  const deps = {
    db: {} as CommonQueryMethods,
    journal: { append: async () => outcomes[appended++] },
    pipeline: {
      fanOut: { epoch: () => '1.1', lastReleased: () => 4 },
      newestFiles: { frame: () => ({ number: 4, bytes: stateBytes }), files: () => files },
      damaged: () => false,
      held: (after: number) => (after < 4 ? held : []),
      finish: (last: LastFrames) => told.push(last),
    },
    proposalId: 'p',
    from: () => 'streaming',
    attempt: () => 1,
    ending: () => ({ errorNumber: 0, errorBytes: null, error: null, endNumber: 5, state: null }),
    askState: async () => ({ kind: 'not_found' as const }),
    sleep: async () => undefined,
    delayMs: () => 0,
    pastDeadline: () => false,
    awaited: () => true,
    mayAskAgain: () => false,
    allowed: { fileBytes: 100, files: 10 },
    onCommitted: (...what: unknown[]) => committed.push(what),
    onTranscriptLacking: (...what: unknown[]) => lacking.push(what),
    ...overrides,
  };
  return { deps: deps as unknown as SettleDeps, told, committed, lacking, appended: () => appended };
}

t.test('content that PostgreSQL refuses fails the run without it (rule 2)', async (t) => {
  const { deps, told, committed } = bench([
    { kind: 'refused', error: new Error('22P05') },
    { kind: 'committed' },
  ]);
  t.strictSame(await settleRun(deps, { kind: 'completed' }), { kind: 'committed', status: 'failed' });
  t.strictSame(committed, [['failed', 'invalid_content']]);
  const frames = told[0]?.frames.map(({ number, bytes }) => [number, JSON.parse(bytes.toString())]);
  t.match(frames, [
    [4, { event_type: 'on_state_update' }],
    [5, { seq: 5, event_type: 'error', data: { code: 'invalid_content', retryable: false } }],
    [6, { seq: 6, event_type: 'end', data: { status: 'failed', files: {} } }],
  ]);
});

t.test('nothing is told of a commit that was not made', async (t) => {
  const cases: [JournalOutcome, unknown][] = [
    [{ kind: 'moved', row: row('processing') }, { kind: 'cancelled' }],
    [{ kind: 'lost', row: row('processing') }, { kind: 'lost' }],
    [{ kind: 'aborted' }, { kind: 'lost' }],
    [
      { kind: 'finished', row: row('failed') },
      { kind: 'finished', status: 'failed' },
    ],
  ];
  for (const [outcome, settled] of cases) {
    const { deps, told, committed } = bench([outcome]);
    t.strictSame(await settleRun(deps, { kind: 'completed' }), settled);
    t.strictSame([told, committed], [[], []]);
  }
});

t.test('a cancel that was committed before a failure is the outcome (rule 4)', async (t) => {
  const asked: boolean[] = [];
  const journal = {
    append: async (_: unknown, goOn: (row: ThreadRow) => boolean = () => true) => {
      asked.push(...[null, 'now'].map((at) => goOn({ cancelRequestedAt: at } as ThreadRow)));
      return { kind: 'moved', row: row('processing') };
    },
  } as unknown as SettleDeps['journal'];
  const error = { code: 'model_error', message: 'y', retryable: false };
  const failure = bench([], { journal });
  t.strictSame(await settleRun(failure.deps, { kind: 'failed', error, byRuntime: true }), {
    kind: 'cancelled',
  });
  t.strictSame(asked.splice(0), [true, false]);
  const cancelled = bench([], { journal });
  await settleRun(cancelled.deps, {
    kind: 'failed',
    error: { ...error, code: 'cancelled' },
    byRuntime: false,
  });
  t.strictSame(asked, [true, true], 'but it does not stand in its own way');
});

t.test('a failure that PostgreSQL refuses is a fault of ours', async (t) => {
  const { deps, told } = bench([{ kind: 'refused', error: new Error('refused') }]);
  const error = { code: 'x', message: 'y', retryable: false };
  await t.rejects(settleRun(deps, { kind: 'failed', error, byRuntime: false }), { message: 'refused' });
  t.strictSame(told, []);
});

/** A run that has told no files. */
const noFiles = {
  fanOut: { epoch: () => '1.1', lastReleased: () => 4 },
  newestFiles: { frame: () => null, files: () => null },
  damaged: () => false,
  held: () => [],
  finish: () => undefined,
} as unknown as SettleDeps['pipeline'];
const running = { thread_id: 't', status: 'running' as const, result: null, generated_files: null };

t.test(
  'a runtime that does not tell its state is asked until the deadline, or some twenty times',
  async (t) => {
    let asked = 0;
    const says = bench([{ kind: 'committed' }], {
      pipeline: noFiles,
      askState: async () => {
        asked++;
        return { kind: 'state', state: running };
      },
    });
    t.strictSame(await settleRun(says.deps, { kind: 'completed' }), { kind: 'committed', status: 'failed' });
    t.equal(asked, 20);
    t.strictSame(says.committed, [['failed', 'completed_without_files']]);
    asked = 0;
    const away = bench([{ kind: 'committed' }], {
      pipeline: noFiles,
      pastDeadline: () => asked >= 50,
      askState: async () => {
        asked++;
        return { kind: 'away' };
      },
    });
    await settleRun(away.deps, { kind: 'completed' });
    t.equal(asked, 50, 'away is not failed: only the deadline ends it');
  },
);

t.test(
  'a run that has ended, and whose state could not be asked before the deadline, is runtime_unavailable (rule 16)',
  async (t) => {
    const away: StateResult = { kind: 'away' };
    const says: StateResult = { kind: 'state', state: running };
    const cases: [StateResult[], string][] = [
      [[away, away], 'runtime_unavailable'],
      [[says, away], 'runtime_unavailable'],
      [[away, says], 'completed_without_files'],
      [[away, { kind: 'not_found' }], 'completed_without_files'],
    ];
    for (const [answers, code] of cases) {
      const told: LastFrames[] = [];
      const { deps, committed } = bench([{ kind: 'committed' }], {
        pipeline: { ...noFiles, finish: (last: LastFrames) => void told.push(last) },
        pastDeadline: () => answers.length === 0,
        askState: async () => answers.shift() ?? away,
      });
      t.strictSame(await settleRun(deps, { kind: 'completed' }), { kind: 'committed', status: 'failed' });
      t.strictSame(committed, [['failed', code]]);
      t.match(JSON.parse(told[0]?.frames.at(-2)?.bytes.toString() ?? ''), { data: { code } });
    }
  },
);

t.test('only a transcript that lacks frames is completed after the commit, and only after one', async (t) => {
  const late = [3, 4].map((number) => ({ number, bytes: stateBytes }));
  const error = { code: 'x', message: 'y', retryable: false };
  const cases: [string, Parameters<typeof bench>, unknown[]][] = [
    ['whole', [[{ kind: 'committed' }]], []],
    ['without its beginning', [[{ kind: 'committed' }], {}, late], [['1.1', 4]]],
    ['not committed', [[{ kind: 'aborted' }], {}, late], []],
  ];
  for (const [name, given, expected] of cases) {
    const completes = bench(...given);
    await settleRun(completes.deps, { kind: 'completed' });
    t.strictSame(completes.lacking, expected, name);
    const fails = bench(...given);
    await settleRun(fails.deps, { kind: 'failed', error, byRuntime: true });
    t.strictSame(fails.lacking, expected, `${name}, failed`);
  }
  const closed = bench([{ kind: 'committed' }], {}, late);
  await settleRun(closed.deps, { kind: 'failed', error, byRuntime: false });
  t.strictSame(closed.lacking, [], 'an epoch of ours has none');
});

t.test('commits that wait for PostgreSQL hold no frames of the transcript (rule 17)', async (t) => {
  const fence = { proposalId: 'p', generation: 1, version: 1, transitionId: 't' };
  for (const verdict of [
    { kind: 'completed' as const },
    { kind: 'failed' as const, error: { code: 'x', message: 'y', retryable: false }, byRuntime: true },
  ]) {
    const buffers: number[] = [];
    const { deps, lacking } = bench([], {
      db: {
        maybeOne: async ({ values }: { values: unknown[] }) =>
          void buffers.push(values.filter((value) => Buffer.isBuffer(value)).length),
      } as unknown as CommonQueryMethods,
      journal: {
        async append(commit: (given: typeof fence) => Promise<unknown>) {
          await commit(fence);
          t.strictSame(buffers, [2], 'the last frames and the transcript');
          await commit(fence);
          return { kind: 'committed' };
        },
      } as unknown as SettleDeps['journal'],
    });
    await settleRun(deps, verdict);
    t.strictSame(buffers, [2, 1], 'the last frames alone');
    t.strictSame(lacking, [['1.1', 4]], 'the rest follows the commit');
  }
});
