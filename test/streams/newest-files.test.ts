import { test } from 'tap';
import { createNewestFiles } from '../../src/streams/newest-files.js';
import { frameText } from '../support/frames.js';

const stateOf = (seq: number, data: unknown) => Buffer.from(frameText(seq, 'on_state_update', data));

test('the files are those of the last state update that has any', async (t) => {
  const newest = createNewestFiles();
  t.equal(newest.files(), null);
  newest.take(stateOf(1, { files: { '/a': { content: ['1'] } } }), 1);
  newest.take(stateOf(2, { todos: [] }), 2);
  newest.take(stateOf(3, { files: null }), 3);
  t.same(newest.files(), { '/a': { content: ['1'] } });
  t.equal(newest.frame()?.number, 1);
  newest.take(stateOf(4, { todos: [], files: { '/b': null } }), 4);
  t.same(newest.files(), { '/b': null });
  newest.take(stateOf(5, { files: {} }), 5);
  t.same(newest.files(), {});
});

test('a state update that only mentions files does not take the place of one that has them', async (t) => {
  const newest = createNewestFiles();
  newest.take(stateOf(1, { files: { '/a': null } }), 1);
  newest.take(stateOf(2, { messages: [{ tool: { args: { files: { '/x': 1 } } } }] }), 2);
  newest.take(Buffer.from('{"seq":3,"event_type":"on_state_update","files":{},"data":{}}'), 3);
  t.equal(newest.frame()?.number, 1);
  t.same(newest.files(), { '/a': null });
});

test('files are found in any form of the frame', async (t) => {
  const newest = createNewestFiles();
  const pretty = { event_type: 'on_state_update', data: { files: { '/a': null } }, seq: 1 };
  newest.take(Buffer.from(JSON.stringify(pretty, null, 2)), 1);
  t.same(newest.files(), { '/a': null });
  newest.take(Buffer.from('{"seq":2,"event_type":"on_state_update","data":{"\\u0066iles":{"/b":null}}}'), 2);
  t.same(newest.files(), { '/b': null });
});

test('a large state update that turns out broken leaves no files of before in its place', async (t) => {
  const newest = createNewestFiles();
  newest.take(stateOf(1, { files: { '/a': null } }), 1);
  newest.take(
    Buffer.from('{"seq":2,"event_type":"on_state_update","data":{"files":{"/b":{"content":["x}}'),
    2,
  );
  t.equal(newest.frame()?.number, 2);
  t.equal(newest.files(), null);
  newest.take(Buffer.from('{"seq":3,"event_type":"on_state_update","data":{"todos":[],"files":{"/b}}'), 3);
  t.equal(newest.frame()?.number, 3);
});

test('the frame is a copy, may lose its number, and goes when it is cleared', async (t) => {
  const newest = createNewestFiles();
  const frame = stateOf(1, { files: { '/a': null } });
  newest.unnumber();
  newest.take(frame, 1);
  frame.fill(0);
  newest.unnumber();
  t.equal(newest.frame()?.number, 0);
  t.same(newest.files(), { '/a': null });
  newest.clear();
  t.equal(newest.frame(), null);
  t.equal(newest.files(), null);
});
