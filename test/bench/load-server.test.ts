import { once } from 'node:events';
import tap from 'tap';
import { WebSocket } from 'ws';
import { createLoadServer, type LoadServer } from '../../bench/load/load-server.js';

interface Frame {
  seq?: number;
  event_type: string;
  data: { last_seq?: number; files?: Record<string, unknown> };
}

const callsOf = ({ port }: LoadServer) => {
  const base = `http://127.0.0.1:${port}/deepagents-runtime`;
  const input_payload = { messages: [{ role: 'user', content: 'Load' }] };
  return {
    invoke: async (id: string) => {
      const body = JSON.stringify({ trace_id: id, job_id: id, agent_definition: {}, input_payload });
      return (await (await fetch(`${base}/invoke`, { method: 'POST', body })).json()) as object;
    },
    state: async (id: string) => (await (await fetch(`${base}/state/${id}`)).json()) as { status: string },
    send: async (method: string, path: string) => (await fetch(`${base}/${path}`, { method })).status,
    open: (path: string) => new WebSocket(`${base.replace('http', 'ws')}/stream/${path}`),
  };
};

/** All frames up to the close, and its code. */
async function readAll(socket: WebSocket): Promise<{ frames: Frame[]; code: number }> {
  const frames: Frame[] = [];
  socket.on('message', (data: Buffer) => frames.push(JSON.parse(data.toString()) as Frame));
  const [code] = (await once(socket, 'close')) as [number];
  return { frames, code };
}

const numbersFrom = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

tap.test(
  'The load runtime sends by itself from the first stream on, and replays to who comes later',
  async (t) => {
    const server = await createLoadServer({ auto: { frames: 20, perSecond: 100 } });
    t.teardown(server.stop);
    const calls = callsOf(server);
    t.same(await calls.invoke('a'), { thread_id: 'a', status: 'started' });
    t.same(await calls.invoke('a'), { thread_id: 'a', status: 'started' });
    const { frames, code } = await readAll(calls.open('a'));
    t.equal(code, 1000);
    t.match(frames[0], { event_type: 'on_open', data: { epoch: 1, first_seq: 1, last_seq: 0 } });
    t.same(
      frames.slice(1).map(({ seq }) => seq),
      numbersFrom(1, 22),
    );
    t.match(frames.at(-1), { event_type: 'end' });
    t.equal(Object.keys(frames.at(-2)?.data.files ?? {}).length, 3);
    t.match(await calls.state('a'), { status: 'completed' });

    const later = await readAll(calls.open('a?after=15&epoch=1'));
    t.same(
      later.frames.slice(1).map(({ seq }) => seq),
      numbersFrom(16, 22),
    );
    t.equal(await calls.send('DELETE', 'cleanup/a'), 204);
    t.equal(await calls.send('DELETE', 'cleanup/a'), 404);
  },
);

tap.test('A flood stays within the credit of what was taken, and goes on when more was', async (t) => {
  const server = await createLoadServer({ auto: null });
  t.teardown(server.stop);
  const calls = callsOf(server);
  await calls.invoke('f');
  const socket = calls.open('f');
  let last = 0;
  socket.on('message', (data: Buffer) => {
    last = (JSON.parse(data.toString()) as Frame).seq ?? 0;
    if (last === 100) setTimeout(() => server.threads.taken(['f'], [last]), 50);
    if (last === 200) server.threads.end(['f']);
  });
  await once(socket, 'open');
  server.threads.flood(['f'], 200, 100);
  const { frames, code } = await readAll(socket);
  t.equal(code, 1000);
  t.equal(last, 202);
  t.same(
    frames.filter(({ seq }) => seq !== undefined).map(({ seq }) => seq),
    numbersFrom(1, 202),
  );
});

tap.test('A cancelled load ends with an error and its end', async (t) => {
  const server = await createLoadServer({ auto: { frames: 1000, perSecond: 100 } });
  t.teardown(server.stop);
  const calls = callsOf(server);
  await calls.invoke('c');
  const reading = readAll(calls.open('c'));
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(await calls.send('POST', 'cancel/c'), 202);
  const { frames } = await reading;
  t.same(
    frames.slice(-2).map(({ event_type }) => event_type),
    ['error', 'end'],
  );
  t.match(await calls.state('c'), { status: 'failed' });
});
