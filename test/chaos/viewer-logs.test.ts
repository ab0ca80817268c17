import tap from 'tap';
import { faultsBetweenViewers, faultsOfViewer } from '../../chaos/check/check-viewer.js';
import type { Entry, ViewerLog } from '../../chaos/check/viewer-log.js';

const subscribed = (
  epoch: string,
  asked: { epoch: string; seq: number } | null = null,
  recovery: 'exact' | 'compacted' | 'reset' = 'exact',
): Entry => ({ kind: 'subscribed', epoch, asked, recovery });
const token = (seq: number, text = `t${seq}`, first = seq): Entry => ({
  kind: 'frame',
  first,
  seq,
  type: 'on_llm_stream',
  print: `${first}-${seq}:${text}`,
  text,
});
const end = (seq: number): Entry => ({
  kind: 'frame',
  first: seq,
  seq,
  type: 'end',
  print: 'end',
  text: null,
});
const log = (entries: Entry[], more: Partial<ViewerLog> = {}): ViewerLog => ({
  viewer: 'v',
  threadId: 't',
  stayed: true,
  entries,
  ends: [{ at: 0, epoch: '1.1', status: 'completed', files: {} }],
  ...more,
});

tap.test(
  'a viewer that got every number once, over losses, resets and skips, is without fault',
  async (t) => {
    const whole = log([
      subscribed('1.1'),
      token(1),
      token(2),
      subscribed('1.1', { epoch: '1.1', seq: 2 }),
      token(5, 't3t4t5', 3),
      subscribed('1.1', { epoch: '1.1', seq: 5 }, 'compacted'),
      { kind: 'skipped', first: 6, last: 9 },
      token(10),
      // A replica that has not heard of the log that follows names the old one, and sends nothing of it.
      { kind: 'begin', epoch: '1.2' },
      subscribed('1.1', { epoch: '1.2', seq: 0 }, 'reset'),
      { kind: 'begin', epoch: '1.2' },
      token(1),
      { kind: 'begin', epoch: '2.1' },
      token(1),
      { kind: 'begin', epoch: '2.closed' },
      end(1),
    ]);
    t.strictSame(faultsOfViewer(whole), []);
  },
);

tap.test('every fault of a viewer’s numbers is named', async (t) => {
  const faulty: [string, ViewerLog, RegExp][] = [
    ['a hole', log([subscribed('1.1'), token(1), token(4), end(5)]), /hole in epoch 1\.1: 2 to 3 never came/],
    ['a double', log([subscribed('1.1'), token(1), token(1), end(2)]), /on_llm_stream 1 came again/],
    [
      'a double in a merged frame',
      log([subscribed('1.1'), token(1), token(2), token(3, 'x', 2), end(4)]),
      /on_llm_stream 2 came again/,
    ],
    [
      'a double after coming back',
      log([subscribed('1.1'), token(1), subscribed('1.1', { epoch: '1.1', seq: 1 }), token(1), end(2)]),
      /came again/,
    ],
    [
      'a skip over what had come',
      log([subscribed('1.1'), token(1), { kind: 'skipped', first: 1, last: 3 }, end(4)]),
      /on_skipped 1 came again/,
    ],
    ['a beginning in the middle', log([subscribed('1.1'), token(7), end(8)]), /1 to 6 never came/],
    [
      'another epoch as if it were the same',
      log([subscribed('1.2', { epoch: '1.1', seq: 0 }), token(1), end(2)]),
      /exact in epoch 1\.2 for a position in 1\.1/,
    ],
    [
      'frames of an epoch that is over',
      log([subscribed('1.2'), token(1), { kind: 'begin', epoch: '1.1' }, token(1), end(2)]),
      /of epoch 1\.1 came after epoch 1\.2/,
    ],
    [
      'a frame after the end',
      log([subscribed('1.1'), end(1), token(2)]),
      /\(on_llm_stream, 2\) after the end/,
    ],
    ['a frame before everything', log([token(1)]), /before on_subscribed/],
    [
      'a second end',
      log([subscribed('1.1'), end(1)], {
        ends: [1, 2].map((at) => ({ at, epoch: '1.1', status: 'failed', files: {} })),
      }),
      /2 ends/,
    ],
    ['no end', log([subscribed('1.1'), token(1)], { ends: [] }), /stayed and never saw an end/],
  ];
  for (const [what, broken, wanted] of faulty) t.match(faultsOfViewer(broken).join('\n'), wanted, what);
  t.strictSame(
    faultsOfViewer(log([subscribed('1.1'), token(1)], { stayed: false, ends: [] })),
    [],
    'whoever leaves is owed no end',
  );
});

tap.test(
  'other bytes under the same number, and a merged frame that is not its parts, are named',
  async (t) => {
    const one = log([subscribed('1.1'), token(1), token(2), token(3)], { viewer: 'one' });
    const same = log([subscribed('1.1'), token(1), token(3, 't2t3', 2)], { viewer: 'same' });
    t.strictSame(faultsBetweenViewers([one, same]), []);
    const other = log([subscribed('1.1'), token(1, 'else')], { viewer: 'other' });
    t.strictSame(faultsBetweenViewers([one, other]), [
      'on_llm_stream 1 of epoch 1.1 differs between viewers one and other',
    ]);
    const merged = log([subscribed('1.1'), token(1), token(3, 't2', 2)], { viewer: 'merged' });
    t.strictSame(faultsBetweenViewers([one, merged]), [
      'viewer merged: the merged frame 2 to 3 of epoch 1.1 is not its parts',
    ]);
    const later = log([subscribed('1.2'), token(1, 'else')], { viewer: 'later' });
    t.strictSame(faultsBetweenViewers([one, later]), [], 'another epoch has numbers of its own');
  },
);
