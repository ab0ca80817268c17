import fc from 'fast-check';
import { test } from 'tap';
import { createFrameDecoder, parseFrame, renumberFrame } from '../../src/streams/decode-frame.js';
import { FrameKind } from '../../src/streams/frame-batch.js';

function decoded(text: string | Buffer) {
  const decoder = createFrameDecoder();
  const kind = decoder.decode(Buffer.from(text));
  return { kind, number: decoder.number, parsed: decoder.value !== null };
}

test('a frame in the usual form is read from its first bytes, without a parse', async (t) => {
  const usual: [string, FrameKind][] = [
    ['on_llm_stream', FrameKind.token],
    ['on_tool_start', FrameKind.toolStart],
    ['on_tool_end', FrameKind.toolEnd],
    ['on_something_new', FrameKind.other],
    ['on_llm_streams', FrameKind.other],
    ['ends', FrameKind.other],
  ];
  for (const [name, kind] of usual) {
    t.same(decoded(`{"seq":12,"event_type":"${name}","data":{}}`), { kind, number: 12, parsed: false }, name);
  }
});

test('what decides about the run is parsed whole: state updates, errors, the end and the opening', async (t) => {
  const parsed: [string, FrameKind][] = [
    ['on_state_update', FrameKind.state],
    ['error', FrameKind.error],
    ['end', FrameKind.end],
    ['on_open', FrameKind.opening],
    ['on_rejected', FrameKind.rejected],
  ];
  for (const [name, kind] of parsed) {
    t.same(decoded(`{"seq":3,"event_type":"${name}","data":{}}`), { kind, number: 3, parsed: true }, name);
    t.equal(decoded(`{"seq":3,"event_type":"${name}","data":{x}}`).kind, FrameKind.unreadable, name);
  }
});

test('other key orders, spaces, pretty-printing, escaped names and missing numbers mean the same', async (t) => {
  const token = { kind: FrameKind.token, parsed: true };
  t.same(decoded('{"event_type":"on_llm_stream","data":{},"seq":4}'), { ...token, number: 4 });
  t.same(decoded('{"data":{},"event_type":"on_llm_stream"}'), { ...token, number: 0 });
  t.same(decoded('  {"seq": 4, "event_type": "on_llm_stream", "data": {}}\n'), { ...token, number: 4 });
  t.same(decoded(JSON.stringify({ seq: 4, event_type: 'on_llm_stream', data: {} }, null, 2)), {
    ...token,
    number: 4,
  });
  t.same(decoded('{"seq":4,"event_type":"on_\\u006clm_stream","data":{}}'), { ...token, number: 4 });
  t.same(decoded('{"seq":4,"event_type":"on_llm_stream","data":{},"ts":1}'), { ...token, number: 4 });
  t.same(decoded('{"event_type":"on_llm_stream","data":{"raw_event":"AIMessageChunk"}}'), {
    ...token,
    number: 0,
  });
  t.equal(decoded('{"raw_event":"AIMessageChunk"}').kind, FrameKind.unreadable, 'a frame without a kind');
});

test('a number that is none makes the frame unreadable, except null, which is no number', async (t) => {
  for (const seq of ['0', '-1', '1.5', '"1"', '[]', 'true', '01', '9007199254740993', '1e400']) {
    const found = decoded(`{"seq":${seq},"event_type":"on_llm_stream","data":{}}`);
    t.equal(found.kind, FrameKind.unreadable, seq);
    t.equal(found.number, 0, seq);
  }
  t.match(decoded('{"seq":null,"event_type":"on_llm_stream","data":{}}'), {
    kind: FrameKind.token,
    number: 0,
  });
  t.match(decoded('{"seq":1e2,"event_type":"on_llm_stream","data":{}}'), {
    kind: FrameKind.token,
    number: 100,
  });
  const largest = `{"seq":${Number.MAX_SAFE_INTEGER},"event_type":"on_llm_stream","data":{}}`;
  t.match(decoded(largest), { kind: FrameKind.token, number: Number.MAX_SAFE_INTEGER });
});

test('what is no JSON object with a kind is unreadable', async (t) => {
  const broken = [
    '',
    'x',
    '[]',
    'null',
    '1',
    '{}',
    '{"event_type":5}',
    '{"event_type":""}',
    '{"seq":1,"event_type":""}',
  ];
  for (const text of broken) t.equal(decoded(text).kind, FrameKind.unreadable, text);
  const frame = '{"seq":1,"event_type":"on_llm_stream","data":{"content":"a"}}';
  for (let length = 0; length < frame.length; length++) {
    t.equal(decoded(frame.slice(0, length)).kind, FrameKind.unreadable, `cut off after ${length} bytes`);
  }
  t.equal(
    decoded(`{"seq":1,"event_type":"${'x'.repeat(100)}","data":{}}`).kind,
    FrameKind.other,
    'a long name',
  );
});

test('a state update must have data, with files in a map where it has any', async (t) => {
  const kindOf = (data: string) => decoded(`{"seq":1,"event_type":"on_state_update","data":${data}}`).kind;
  for (const data of ['{}', '{"files":{}}', '{"files":null}', '{"files":{"/a":null}}']) {
    t.equal(kindOf(data), FrameKind.state, data);
  }
  for (const data of ['null', '[]', '"x"', '{"files":[]}', '{"files":"x"}', '{"files":{}']) {
    t.equal(kindOf(data), FrameKind.unreadable, data);
  }
  t.equal(decoded('{"seq":1,"event_type":"on_state_update"}').kind, FrameKind.unreadable);
});

test('a state update over 64 KiB is parsed at the end only, unless it is cut off', async (t) => {
  const frame = JSON.stringify({
    seq: 7,
    event_type: 'on_state_update',
    data: { files: { '/a': { content: ['x'.repeat(70_000)] } } },
  });
  t.same(decoded(frame), { kind: FrameKind.state, number: 7, parsed: false });
  t.equal(decoded(frame.slice(0, -40)).kind, FrameKind.unreadable);
  t.equal(decoded(`${frame.slice(0, -3)}`).kind, FrameKind.unreadable);
});

test('the first bytes of any frame tell what a parse of the whole tells', async () => {
  const names = fc.oneof(
    fc.constantFrom(
      'on_llm_stream',
      'on_state_update',
      'on_tool_start',
      'on_tool_end',
      'error',
      'end',
      'on_open',
    ),
    fc.string({ unit: 'binary', maxLength: 80 }),
  );
  const frames = fc.record(
    {
      seq: fc.oneof(fc.nat(), fc.double(), fc.maxSafeInteger()),
      event_type: names,
      data: fc.dictionary(fc.string(), fc.jsonValue()),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(frames, (frame) => {
      const text = JSON.stringify(frame);
      const usual = decoded(text);
      const spaced = decoded(` ${text}`);
      return usual.kind === spaced.kind && usual.number === spaced.number;
    }),
    { numRuns: 300 },
  );
});

test('a frame gets our number in front, in place of its own', async (t) => {
  const given = Buffer.from('{"event_type":"on_llm_stream","data":{"content":"é"}}');
  t.equal(
    renumberFrame(given, parseFrame(given) ?? {}, 5).toString(),
    '{"seq":5,"event_type":"on_llm_stream","data":{"content":"é"}}',
  );
  const numbered = Buffer.from('{"event_type":"end","seq":9,"data":{}}');
  t.equal(
    renumberFrame(numbered, parseFrame(numbered) ?? {}, 2).toString(),
    '{"seq":2,"event_type":"end","data":{}}',
  );
});
