import { test } from 'tap';
import { createLogger, withoutCredentials } from '../src/telemetry/logger.js';

function linesOf(production: boolean, level = 'info') {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  return { lines, log: createLogger({ level, production, destination }) };
}

test('a line holds time, level by name, the message and what the child is bound to', async (t) => {
  const { lines, log } = linesOf(false);
  log.child({ thread_id: 'x' }).info({ seq: 4 }, 'stream opened');
  log.debug('not at this level');
  t.equal(lines.length, 1);
  t.match(lines[0], { level: 'info', msg: 'stream opened', thread_id: 'x', seq: 4, time: /^\d{4}-.*Z$/ });
  t.notOk(lines[0]?.hostname);
});

test('in production a line names its process and host', async (t) => {
  const { lines, log } = linesOf(true);
  log.info('up');
  t.match(lines[0], { pid: process.pid, hostname: String });
});

test('no credential gets into a line by the fields that carry them', async (t) => {
  const { lines, log } = linesOf(true);
  const hidden = 'hunter2';
  log.info({ token: hidden, ticket: hidden, authorization: hidden }, 'x');
  log.info({ headers: { authorization: hidden, 'sec-websocket-protocol': `bearer, ${hidden}` } }, 'x');
  log.info({ req: { headers: { authorization: hidden }, ticket: hidden } }, 'x');
  log.info({ url: `/api/ws/refinements/1?after=3&token=${hidden}&epoch=1.1` }, 'x');
  log.info({ url: `/api/ws/refinements/1?ticket=${hidden}` }, 'x');
  log.info({ url: 7 }, 'x');
  t.equal(lines.length, 6);
  t.notMatch(JSON.stringify(lines), new RegExp(hidden));
  t.equal(lines[3]?.url, '/api/ws/refinements/1?after=3&token=[redacted]&epoch=1.1');
  t.equal(withoutCredentials('/x?after=1'), '/x?after=1');
});
