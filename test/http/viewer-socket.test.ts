import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { WebSocket } from 'ws';
import { AppError } from '../../src/errors.js';
import { type Api, createApi } from '../support/api.js';
import { eventually } from '../support/until.js';

interface Open {
  socket: WebSocket;
  frames: { event_type: string; data: Record<string, unknown> }[];
  /** Resolves with code and reason. */
  closed: Promise<{ code: number; reason: string }>;
  /** The n-th frame, from 0. */
  frame(index: number): Promise<{ event_type: string; data: Record<string, unknown> }>;
}
interface Refused {
  status: number;
  headers: IncomingMessage['headers'];
  code: string;
}

const refinement = async (api: Api) => {
  const { body: workflow } = await api.call('ada', 'POST', '/api/workflows', { body: { name: 'Agent' } });
  const { body } = await api.call('ada', 'POST', `/api/workflows/${workflow.id}/refinements`, {
    body: { user_prompt: 'x' },
  });
  return {
    workflowId: workflow.id as string,
    proposalId: body.proposal_id as string,
    threadId: body.thread_id as string,
  };
};

const dial = (
  api: Api,
  path: string,
  options: { headers?: Record<string, string>; protocols?: string[] } = {},
): Promise<Open | Refused> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${api.server.port}${path}`, options.protocols ?? [], {
      headers: options.headers ?? {},
    });
    const frames: Open['frames'] = [];
    socket.on('message', (message) => frames.push(JSON.parse(message.toString())));
    const closed = new Promise<{ code: number; reason: string }>((done) => {
      socket.on('close', (code, reason) => done({ code, reason: reason.toString() }));
    });
    socket.on('error', reject);
    socket.on('open', () =>
      resolve({
        socket,
        frames,
        closed,
        async frame(index) {
          await eventually(`frame ${index}`, () => frames.length > index);
          return frames[index] as Open['frames'][number];
        },
      }),
    );
    socket.on('unexpected-response', (_request, response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, code: JSON.parse(text).code }),
      );
    });
  });
const opened = async (...args: Parameters<typeof dial>): Promise<Open> => {
  const result = await dial(...args);
  if ('status' in result) throw new Error(`refused with ${result.status} ${result.code}`);
  return result;
};
const refused = async (...args: Parameters<typeof dial>): Promise<Refused> => {
  const result = await dial(...args);
  if ('status' in result) return result;
  result.socket.terminate();
  throw new Error('was let in');
};
const bearer = async (api: Api, user: string) => ({
  headers: { authorization: `Bearer ${await api.token(user)}` },
});
const until = (condition: () => boolean) => eventually(String(condition), condition);

t.test(
  'every kind of credential lets its owner in, and the sub-protocol is answered without the token',
  async (t) => {
    const api = await createApi(t);
    const { threadId } = await refinement(api);
    const path = `/api/ws/refinements/${threadId}`;
    const token = await api.token('ada');
    const { body: ticket } = await api.call('ada', 'POST', '/api/ws/tickets', {
      body: { thread_id: threadId },
    });
    const viewers = [
      await opened(api, path, await bearer(api, 'ada')),
      await opened(api, path, { protocols: ['bearer', token] }),
      await opened(api, `${path}?token=${token}`),
      await opened(api, `${path}?ticket=${ticket.ticket}&after=7&epoch=1.1`),
    ];
    for (const viewer of viewers)
      t.match(await viewer.frame(0), { event_type: 'on_subscribed', data: { thread_id: threadId } });
    t.same(
      viewers.map((viewer) => viewer.socket.protocol),
      ['', 'bearer', '', ''],
    );
    t.same(
      api.directory.seats.map((seat) => seat.position),
      [{}, {}, {}, { after: 7, epoch: '1.1' }],
    );
    t.match(api.directory.seats[0]?.viewer, {
      userId: 'ada',
      access: 'owner',
      accessVersion: 1,
      traceId: /^[0-9a-f]{32}$/,
    });
    t.equal(api.server.viewers(), 4);
    t.match(await api.metrics.render(), /websocket_connections 4/);
    for (const viewer of viewers) viewer.socket.close(1000);
    await until(() => api.directory.seats.every((seat) => seat.detached));
    t.match(await api.metrics.render(), /websocket_connections 0/);
  },
);

t.test(
  'a ticket is used once, for its thread, by whoever holds it, and never longer than the token behind it (rule 19)',
  async (t) => {
    const api = await createApi(t);
    const { threadId } = await refinement(api);
    const other = await refinement(api);
    const path = `/api/ws/refinements/${threadId}`;
    const make = async (user = 'ada') =>
      api.call(user, 'POST', '/api/ws/tickets', { body: { thread_id: threadId } });
    const first = await make();
    t.equal(first.status, 201);
    t.ok(new Date(first.body.expires_at).getTime() - Date.now() <= 60_000);
    const race = await Promise.all([1, 2, 3].map(() => dial(api, `${path}?ticket=${first.body.ticket}`)));
    t.same(race.map((each) => ('status' in each ? each.status : 101)).sort(), [101, 401, 401]);
    t.equal(
      (await refused(api, `/api/ws/refinements/${other.threadId}?ticket=${(await make()).body.ticket}`))
        .status,
      401,
    );
    const [secret, end] = (await make()).body.ticket.split('.');
    t.equal(
      (await refused(api, `${path}?ticket=${secret}.${end}z`)).status,
      401,
      'a prolonged one is another one',
    );
    t.equal(
      (await refused(api, `${path}?ticket=`, await bearer(api, 'ada'))).status,
      401,
      'an empty one counts too',
    );
    t.equal((await refused(api, `${path}?ticket=x&token=${await api.token('ada')}`)).status, 401);
    t.equal((await make('eve')).status, 404);
    t.equal((await api.call('ada', 'POST', '/api/ws/tickets', { body: { thread_id: 'x' } })).status, 404);
    for (const each of race) if (!('status' in each)) each.socket.terminate();
  },
);

t.test(
  'who may not see a thread is refused before the upgrade, with a status that says no more than it must',
  async (t) => {
    const api = await createApi(t, { http: { corsAllowedOrigins: ['https://ide.example'] } });
    const { threadId, workflowId } = await refinement(api);
    const path = `/api/ws/refinements/${threadId}`;
    const ada = await bearer(api, 'ada');
    const none = await refused(api, path);
    t.match(none, { status: 401, code: 'unauthenticated', headers: { 'www-authenticate': /Bearer/ } });
    t.equal((await refused(api, `${path}?token=nonsense`)).status, 401);
    t.equal((await refused(api, path, { protocols: ['bearer', 'nonsense'] })).status, 401);
    t.equal((await refused(api, path, { headers: { authorization: 'Basic eA==' } })).status, 401);
    t.match(await refused(api, path, await bearer(api, 'eve')), { status: 404, code: 'not_found' });
    t.equal((await refused(api, `/api/ws/refinements/${randomUUID()}`, ada)).status, 404);
    t.equal((await refused(api, '/api/ws/refinements/nonsense', ada)).status, 404);
    for (const query of [
      'after=-1',
      'after=x',
      'after=1.5',
      'after=',
      'after=1&after=2',
      'after=99999999999999999',
      `epoch=${'x'.repeat(256)}`,
    ]) {
      t.match(await refused(api, `${path}?${query}`, ada), { status: 400, code: 'invalid_position' }, query);
    }
    const origin = (value: string) => ({ headers: { ...ada.headers, origin: value } });
    t.match(await refused(api, path, origin('https://evil.example')), {
      status: 403,
      code: 'origin_not_allowed',
    });
    t.equal((await refused(api, path, origin('null'))).status, 403);
    (await opened(api, path, origin('https://ide.example'))).socket.terminate();
    await api.call('ada', 'DELETE', `/api/workflows/${workflowId}`);
    t.equal((await refused(api, path, ada)).status, 404, 'deleted');
    t.equal(api.directory.seats.length, 1);
  },
);

t.test('a user has so many sockets and no more, and a closed one makes room', async (t) => {
  const api = await createApi(t, { http: { socketsPerUser: 2 } });
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  const ada = await bearer(api, 'ada');
  const first = await opened(api, path, ada);
  await opened(api, path, ada);
  const third = await refused(api, path, ada);
  t.match(third, { status: 429, code: 'rate_limited' });
  t.ok(Number(third.headers['retry-after']) > 0);
  first.socket.close();
  await first.closed;
  await until(() => api.server.viewers() === 1);
  await opened(api, path, ada);
});

t.test('the owner’s messages go where they belong', async (t) => {
  const api = await createApi(t);
  const { threadId, proposalId } = await refinement(api);
  const { socket, frame } = await opened(api, `/api/ws/refinements/${threadId}`, await bearer(api, 'ada'));
  await frame(0);
  socket.send('{"type":"ping"}');
  t.same(await frame(1), { event_type: 'on_pong', data: {} });
  const message = '{ "type" : "message", "content": "ä" }';
  socket.send(message);
  socket.send('{"anything":[1]}');
  socket.send('{"type":"cancel"}');
  socket.send('{"type":"ping"}');
  await frame(2);
  t.same(api.directory.seats[0]?.sent, [message, '{"anything":[1]}']);
  t.ok(api.directory.noticed.includes(threadId));
  t.match((await api.call('ada', 'GET', `/api/proposals/${proposalId}/audit`)).body.items.at(-1), {
    event: 'cancel',
    actor_user_id: 'ada',
  });
  api.directory.streaming = false;
  socket.send(message);
  t.match(await frame(3), { event_type: 'on_rejected', data: { code: 'not_streaming' } });
  socket.terminate();
});

t.test('a cancel of what no longer runs is told as such', async (t) => {
  const api = await createApi(t);
  const { threadId, proposalId } = await refinement(api);
  await api.fail(proposalId);
  const { socket, frame } = await opened(api, `/api/ws/refinements/${threadId}`, await bearer(api, 'ada'));
  socket.send('{"type":"cancel"}');
  t.match(await frame(1), { event_type: 'on_rejected', data: { code: 'not_streaming' } });
});

t.test('a read-only viewer may ping and refresh, and nothing else', async (t) => {
  const api = await createApi(t);
  const { threadId, proposalId } = await refinement(api);
  await api.call('ada', 'PUT', `/api/proposals/${proposalId}/access/bob`);
  const { socket, frame } = await opened(api, `/api/ws/refinements/${threadId}`, await bearer(api, 'bob'));
  t.equal(api.directory.seats[0]?.viewer.access, 'viewer');
  const sent = ['{"type":"cancel"}', '{"type":"message","content":"x"}', '{"x":1}', '{"type":"ping"}'];
  for (const text of sent) socket.send(text);
  const codes = [];
  for (let index = 1; index <= 3; index++) codes.push((await frame(index)).data.code);
  t.same(codes, ['forbidden', 'forbidden', 'forbidden']);
  t.equal((await frame(4)).event_type, 'on_pong');
  t.same(api.directory.seats[0]?.sent, []);
});

t.test(
  'an expired session is closed, a fresh token of the same user prolongs it, any other closes it',
  async (t) => {
    const api = await createApi(t);
    const { threadId } = await refinement(api);
    const path = `/api/ws/refinements/${threadId}`;
    const token = await api.token('ada', { expiresIn: 4 });
    const kept = await opened(api, `${path}?token=${token}`);
    const short = await opened(api, path, { headers: { authorization: `Bearer ${token}` } });
    const fresh = await api.token('ada', { expiresIn: 3000 });
    kept.socket.send(JSON.stringify({ type: 'token', token: fresh }));
    t.match(await kept.frame(1), { event_type: 'on_token_accepted', data: { expires_at: /Z$/ } });
    t.match(await short.closed, { code: 4401 });
    kept.socket.send('{"type":"ping"}');
    t.match(await kept.frame(2), { event_type: 'on_pong' }, 'beyond the token that it came with');
    for (const token of [await api.token('eve'), 'nonsense', 7]) {
      const viewer = await opened(api, path, await bearer(api, 'ada'));
      viewer.socket.send(JSON.stringify({ type: 'token', token }));
      t.match(await viewer.closed, { code: 4401 }, String(token).slice(0, 8));
    }
    kept.socket.terminate();
    t.match(await api.metrics.render(), /websocket_closes_total\{code="4401"\} 4/);
  },
);

t.test(
  'what is no JSON object closes 4400, what is too big 1009, and what is far too big is cut',
  async (t) => {
    const api = await createApi(t);
    const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
    const ada = await bearer(api, 'ada');
    for (const [message, code] of [
      ['nonsense', 4400],
      ['[]', 4400],
      ['null', 4400],
      ['"x"', 4400],
      [Buffer.from('{"type":"ping"}'), 4400],
      [`{"x":"${'x'.repeat(65_536)}"}`, 1009],
      [`{"x":"${'x'.repeat(900_000)}"}`, 1009],
      // Never held until it is whole, so there is nobody left to tell.
      [`{"x":"${'x'.repeat(1_048_576)}"}`, 1006],
    ] as const) {
      const viewer = await opened(api, path, ada);
      await viewer.frame(0);
      viewer.socket.send(message);
      t.equal((await viewer.closed).code, code, String(message).slice(0, 10));
    }
    t.same(
      api.directory.seats.flatMap((seat) => seat.sent),
      [],
    );
    const largest = await opened(api, path, ada);
    largest.socket.send(`{"x":"${'x'.repeat(65_528)}"}`);
    await until(() => api.directory.seats.at(-1)?.sent.length === 1);
  },
);

t.test('a refused upgrade answers with the request id that it was sent', async (t) => {
  const api = await createApi(t);
  const headers = { 'x-request-id': 'mine-1' };
  const answer = await refused(api, `/api/ws/refinements/${randomUUID()}`, { headers });
  t.match(answer, { status: 401, headers: { 'x-request-id': 'mine-1' } });
});

t.test('a flood of messages, of pings or of pongs that nobody asked for closes 4429', async (t) => {
  const api = await createApi(t, { viewers: { messagesPerSecond: 5 } });
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  const ada = await bearer(api, 'ada');
  const talker = await opened(api, path, ada);
  for (let each = 0; each < 100; each++) talker.socket.send('{"type":"ping"}');
  t.equal((await talker.closed).code, 4429);
  const pinger = await opened(api, path, ada);
  for (let each = 0; each < 100; each++) pinger.socket.ping();
  t.equal((await pinger.closed).code, 4429);
  const ponger = await opened(api, path, ada);
  for (let each = 0; each < 100; each++) ponger.socket.pong();
  t.equal((await ponger.closed).code, 4429);
  const calm = await opened(api, path, ada);
  for (let each = 0; each < 8; each++) {
    calm.socket.send('{"type":"ping"}');
    await wait(250);
  }
  t.equal(calm.socket.readyState, WebSocket.OPEN);
});

t.test('the first frame is always on_subscribed, and too much before it is a flood', async (t) => {
  const api = await createApi(t, { viewers: { messagesPerSecond: 100 } });
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  let go: () => void = () => undefined;
  api.directory.onAttach = (seat) =>
    new Promise((resolve) => {
      go = () => {
        seat.viewer.send('{"event_type":"on_subscribed","data":{}}');
        resolve();
      };
    });
  const patient = await opened(api, path, await bearer(api, 'ada'));
  patient.socket.send('{"type":"ping"}');
  await wait(50);
  t.same(patient.frames, []);
  go();
  t.equal((await patient.frame(0)).event_type, 'on_subscribed');
  t.equal((await patient.frame(1)).event_type, 'on_pong');
  const hasty = await opened(api, path, await bearer(api, 'ada'));
  for (let each = 0; each < 40; each++) hasty.socket.send('{"type":"ping"}');
  t.equal((await hasty.closed).code, 4429);
  go();
  await until(() => api.directory.seats.every((seat, index) => index === 0 || seat.detached));
});

t.test('a thread that cannot be attached closes the socket with a code that says what to do', async (t) => {
  const api = await createApi(t);
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  api.directory.onAttach = () => Promise.reject(new AppError('database_unavailable', 'away'));
  t.equal((await (await opened(api, path, await bearer(api, 'ada'))).closed).code, 1013);
  api.directory.onAttach = () => Promise.reject(new AppError('not_found', 'gone'));
  t.equal((await (await opened(api, path, await bearer(api, 'ada'))).closed).code, 4404);
});

t.test('topics reach their subscribers in order with what is sent to one of them', async (t) => {
  const api = await createApi(t);
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  api.directory.onAttach = async ({ viewer }) => {
    viewer.cork(() => {
      viewer.send('{"event_type":"one","data":{}}');
      viewer.subscribe('topic');
    });
    api.server.publish('topic', Buffer.from('{"event_type":"two","data":{}}'));
    viewer.send('{"event_type":"three","data":{}}');
    viewer.unsubscribe('topic');
    api.server.publish('topic', '{"event_type":"never","data":{}}');
    t.ok(viewer.bufferedBytes() >= 0);
    viewer.close(1000, 'done');
    t.equal(viewer.send('x'), 2);
    viewer.subscribe('topic');
    viewer.unsubscribe('topic');
    viewer.cork(() => t.fail('a closed socket is not touched'));
    t.equal(viewer.bufferedBytes(), 0);
    viewer.close(4400, 'again');
  };
  const viewer = await opened(api, path, await bearer(api, 'ada'));
  t.same(await viewer.closed, { code: 1000, reason: 'done' });
  t.same(
    viewer.frames.map((frame) => frame.event_type),
    ['one', 'two', 'three'],
  );
});

t.test(
  'a reader that stops reading gets large frames when it reads again, and is told to come back when it is too late',
  async (t) => {
    const api = await createApi(t);
    const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
    const viewer = await opened(api, path, await bearer(api, 'ada'));
    await viewer.frame(0);
    const seat = api.directory.seats[0];
    viewer.socket.pause();
    const frame = (size: number) => JSON.stringify({ event_type: 'big', data: { x: 'x'.repeat(size) } });
    t.not(seat?.viewer.send(frame(15_000_000)), 2, 'the largest frame is never dropped');
    t.ok((seat?.viewer.bufferedBytes() ?? 0) > 0);
    t.not(seat?.viewer.send(frame(500_000)), 2);
    viewer.socket.resume();
    await viewer.frame(2);
    await until(() => (seat?.drains ?? 0) > 0);
    viewer.socket.pause();
    let sent = 0;
    while (seat?.viewer.send(frame(4_000_000)) !== 2) if (++sent > 30) break;
    await until(() => seat?.detached === true);
    t.match(await api.metrics.render(), /websocket_slow_closes_total 1/);
    viewer.socket.terminate();
  },
);

t.test('a viewer that pings while a state larger than its budget is on its way is not closed', async (t) => {
  const api = await createApi(t);
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  const viewer = await opened(api, path, await bearer(api, 'ada'));
  await viewer.frame(0);
  const seat = api.directory.seats[0];
  viewer.socket.pause();
  seat?.viewer.send(JSON.stringify({ event_type: 'on_state_update', data: { x: 'x'.repeat(15_000_000) } }));
  t.ok((seat?.viewer.bufferedBytes() ?? 0) > 2_000_000, 'more waits than the budget of 1 MB');
  viewer.socket.send('{"type":"ping"}');
  await wait(100);
  viewer.socket.resume();
  t.equal((await viewer.frame(1)).event_type, 'on_state_update');
  t.equal((await viewer.frame(2)).event_type, 'on_pong');
  viewer.socket.send('{"type":"ping"}');
  t.equal((await viewer.frame(3)).event_type, 'on_pong', 'it is still heard');
  viewer.socket.terminate();
});

t.test('a stopping server refuses upgrades and tells its viewers to come back', async (t) => {
  const api = await createApi(t);
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  const ada = await bearer(api, 'ada');
  const viewer = await opened(api, path, ada);
  await viewer.frame(0);
  api.server.drain();
  t.match(await refused(api, path, ada), { status: 503, code: 'shutting_down' });
  t.equal(viewer.socket.readyState, WebSocket.OPEN);
  const [closed] = await Promise.all([viewer.closed, api.server.stop(1000)]);
  t.equal(closed.code, 1012);
  t.ok(api.directory.seats[0]?.detached);
});

t.test('a client that goes away while it is judged leaves nothing behind', async (t) => {
  const api = await createApi(t);
  const path = `/api/ws/refinements/${(await refinement(api)).threadId}`;
  const { headers } = await bearer(api, 'ada');
  for (let each = 0; each < 10; each++) {
    const socket = new WebSocket(`ws://127.0.0.1:${api.server.port}${path}`, { headers });
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.on('close', resolve));
    await wait(each);
    socket.terminate();
    await closed;
  }
  await until(() => api.server.viewers() === 0);
  (await opened(api, path, { headers })).socket.terminate();
});

t.test(
  'a ticket is worth nothing any more where access was withdrawn after it was made (rule 19)',
  async (t) => {
    const api = await createApi(t);
    const { proposalId, threadId } = await refinement(api);
    await api.call('ada', 'PUT', `/api/proposals/${proposalId}/access/bob`);
    const make = async () =>
      (await api.call('bob', 'POST', '/api/ws/tickets', { body: { thread_id: threadId } })).body
        .ticket as string;
    const path = `/api/ws/refinements/${threadId}?ticket=`;
    const [good, late] = [await make(), await make()];
    (await opened(api, path + good)).socket.terminate();
    await api.call('ada', 'DELETE', `/api/proposals/${proposalId}/access/bob`);
    t.match(await refused(api, path + late), { status: 404, code: 'not_found' });
    t.match(await refused(api, path + late), { status: 401 }, 'it was used up by the try');
  },
);
