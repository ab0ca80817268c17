import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { z } from 'zod';
import { createOwnConnection } from '../../src/db/own-connection.js';
import {
  createPool,
  DatabaseTimeout,
  isContentError,
  isUnavailable,
  isUnknownOutcome,
  named,
  withDeadline,
} from '../../src/db/pool.js';
import { nameOf } from '../../src/db/statement.js';
import { createTestDatabase } from '../support/database.js';
import { createDatabaseGate } from '../support/database-gate.js';
import { eventually, until } from '../support/until.js';

const { pool, url } = await createTestDatabase(t);

const caught = async (work: Promise<unknown>): Promise<unknown> => {
  try {
    await work;
    return null;
  } catch (error) {
    return error;
  }
};
/** No backend of that application is left, and its connection has been told so. */
const gone = async (application: string): Promise<void> => {
  const left = named('left', z.object({ left: z.number() }))`
    SELECT count(*) AS left FROM pg_stat_activity WHERE application_name = ${application}`;
  await eventually(`no ${application}`, async () => (await pool.one(left)).left === 0);
  await sleep(100);
};
const kindOf = (error: unknown) => ({
  unknown: isUnknownOutcome(error),
  content: isContentError(error),
  unavailable: isUnavailable(error),
});

t.test(
  'every connection has the timeouts that keep a stopped owner from holding locks (rule 1)',
  async (t) => {
    const setting = z.object({ name: z.string(), setting: z.string() });
    const rows = await pool.any(named('settings', setting)`
    SELECT name, setting FROM pg_settings
    WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit',
                   'TimeZone', 'application_name')`);
    t.same(Object.fromEntries(rows.map((row) => [row.name, row.setting])), {
      lock_timeout: '3000',
      statement_timeout: '10000',
      idle_in_transaction_session_timeout: '2000',
      synchronous_commit: 'on',
      TimeZone: 'UTC',
      application_name: 'test',
    });
  },
);

t.test(
  'times are RFC 3339 in UTC, counts are numbers, and rows that break their schema are refused',
  async (t) => {
    const row = z.object({ at: z.string(), count: z.number() });
    t.same(
      await pool.one(named('types', row)`
      SELECT '2026-01-02 03:04:05.678+02'::timestamptz AS at, 7::bigint AS count`),
      { at: '2026-01-02T01:04:05.678Z', count: 7 },
    );
    t.match(await caught(pool.one(named('types', row)`SELECT 1 AS at, 2::bigint AS count`)), {
      message: /do not conform/,
    });
  },
);

t.test(
  'a connection of its own has the same timeouts, and a statement that hangs costs it nothing else',
  async (t) => {
    const settings: unknown[] = [];
    let connects = 0;
    const connection = createOwnConnection({
      url,
      applicationName: 'own',
      answerMs: 1_500,
      onConnected: async (client) => {
        connects++;
        const { rows } = await client.query(`
        SELECT name, setting FROM pg_settings
        WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout') ORDER BY name`);
        settings.push(rows.map(({ setting }) => setting));
        if (connects === 1) {
          await client.query('SELECT pg_sleep(5)').catch((error: Error) => connection.renew(error));
        }
      },
    });
    await eventually('a second connection', () => settings.length >= 2);
    await connection.stop();
    t.strictSame(settings.slice(0, 2), Array(2).fill(['2000', '3000', '10000']));
  },
);

t.test('the duration of each named statement is told, failed ones too', async (t) => {
  const heard: [string, number, string | null][] = [];
  const began = performance.now();
  const timed = await createPool({
    url,
    maximumPoolSize: 1,
    applicationName: 'timed',
    onQuery: (name, seconds, error) => heard.push([name, seconds, error?.message ?? null]),
  });
  const none = z.object({});
  await timed.query(named('good_one', none)`SELECT 1`);
  await caught(timed.query(named('bad_one', none)`SELECT 1 / 0`));
  await timed.end();
  t.same(
    heard.map(([name]) => name),
    ['probe', 'good_one', 'bad_one'],
  );
  const longest = (performance.now() - began) / 1_000;
  t.ok(
    heard.every(([, seconds]) => seconds > 0 && seconds < longest),
    'in seconds',
  );
  t.match(
    heard.map(([, , fault]) => fault),
    [null, null, /zero/],
  );
  t.equal(nameOf('BEGIN'), 'other');
});

t.test('a connection prepares each text of a statement once, and nothing else', async (t) => {
  const single = await createPool({ url, maximumPoolSize: 1, applicationName: 'preparer' });
  const answer = z.object({ answer: z.number() });
  const asked = (part: number) => named('asked', answer)`SELECT ${part}::integer + 1 AS answer`;
  t.same(await single.one(asked(1)), { answer: 2 });
  await single.transaction(async (tx) => {
    t.same(await tx.one(asked(2)), { answer: 3 });
    t.same(await tx.one(named('asked', answer)`SELECT 4 AS answer`), { answer: 4 }, 'another text');
  });
  const prepared = z.object({ statement: z.string(), runs: z.number() });
  t.same(
    await single.any(named('prepared', prepared)`
      SELECT statement, generic_plans + custom_plans AS runs FROM pg_prepared_statements
      WHERE statement NOT LIKE '%pg_prepared_statements%' ORDER BY statement`),
    [
      { statement: '/* asked */ SELECT $1::integer + 1 AS answer', runs: 2 },
      { statement: '/* asked */ SELECT 4 AS answer', runs: 1 },
      { statement: '/* probe */ SELECT 1', runs: 1 },
    ],
  );
  await single.end();
});

t.test('an idle connection that the server cuts is replaced and ends nothing', async (t) => {
  const other = await createPool({ url, maximumPoolSize: 2, applicationName: 'victim' });
  const none = z.object({});
  await other.query(named('first', none)`SELECT 1`);
  await pool.query(named('kill', none)`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'`);
  await gone('victim');
  t.equal((await other.query(named('again', none)`SELECT 1`)).rowCount, 1);
  await other.end();
  t.same(kindOf(await caught(other.query(named('ended', none)`SELECT 1`))), {
    unknown: false,
    content: false,
    unavailable: true,
  });
});

t.test(
  'who waits for a place is served, or refused, when a connection for another could not be made',
  { timeout: 20_000 },
  async (t) => {
    const gate = await createDatabaseGate(url);
    const small = await createPool({ url: gate.url, maximumPoolSize: 1, applicationName: 'small' });
    const none = z.object({});
    const three = () =>
      [1, 2, 3].map(() => caught(small.query(named('one', none)`SELECT 1`))) as Promise<unknown>[];
    /** One whose connection is being made, and two behind it. */
    const waiting = async () => {
      gate.set('swallow');
      gate.cut();
      await until(() => small.state().idleConnections === 0);
      const outcomes = three();
      await until(() => small.state().waitingClients === 2 && gate.connections() === 1);
      return outcomes;
    };
    const served = await waiting();
    gate.set('pass');
    gate.cut();
    t.match(kindOf(await served[0]), { unavailable: true, unknown: false });
    t.strictSame([await served[1], await served[2]], [null, null], 'those behind it are served');

    const refused = await waiting();
    gate.shut();
    for (const each of refused) t.match(kindOf(await each), { unavailable: true, unknown: false });
    for (const each of three()) t.match(kindOf(await each), { unavailable: true }, 'and those after them');
    await small.end();
  },
);

t.test('errors are told apart: nothing sent, outcome unknown, content refused', async (t) => {
  const none = z.object({});
  const nobody = new URL(url);
  nobody.port = '1';
  t.same(
    kindOf(await caught(createPool({ url: nobody.toString(), maximumPoolSize: 1, applicationName: 'x' }))),
    { unknown: false, content: false, unavailable: true },
  );
  const suicide = await caught(
    pool.query(named('suicide', none)`SELECT pg_terminate_backend(pg_backend_pid())`),
  );
  t.same(kindOf(suicide), { unknown: true, content: false, unavailable: false });
  for (const statement of [
    named('no_uuid', none)`SELECT ${'x'}::uuid`,
    named('nul', none)`SELECT ${'{"a":"\\u0000"}'}::jsonb`,
    named('not_null', none)`INSERT INTO users (id) VALUES (NULL)`,
    named('too_long', none)`INSERT INTO users (id) VALUES (${'x'.repeat(300)})`,
  ]) {
    t.same(
      kindOf(await caught(pool.query(statement))),
      { unknown: false, content: true, unavailable: false },
      statement.sql,
    );
  }
  t.same(kindOf(await caught(pool.query(named('typo', none)`SELEC`))), {
    unknown: false,
    content: false,
    unavailable: false,
  });
  t.same(kindOf(Object.assign(new Error('x'), { cause: { code: 'ECONNRESET' } })).unknown, true);
  t.same(kindOf(new AggregateError([{ code: 'ECONNREFUSED' }])).unavailable, true);
  t.same(kindOf('no error at all'), { unknown: false, content: false, unavailable: false });
});

t.test('a lock that is held for 3 s ends the wait, and the same may be tried again', async (t) => {
  const none = z.object({});
  await pool.query(named('seed', none)`INSERT INTO users (id) VALUES ('locked')`);
  // Not a connection of the pool, whose transactions may not idle.
  const holder = new pg.Client({ connectionString: url });
  const other = new pg.Client({ connectionString: url, options: '-c lock_timeout=50' });
  await Promise.all([holder.connect(), other.connect()]);
  await holder.query(`BEGIN; SELECT 1 FROM users WHERE id = 'locked' FOR UPDATE`);
  const waited = await caught(other.query(`SELECT 1 FROM users WHERE id = 'locked' FOR UPDATE`));
  await Promise.all([holder.end(), other.end()]);
  t.same(kindOf(waited), { unknown: true, content: false, unavailable: false });
});

t.test('a transaction that idles for 2 s is over, its lock is free and its slot is not lost', async (t) => {
  const small = await createPool({ url, maximumPoolSize: 1, applicationName: 'idler' });
  const none = z.object({});
  await pool.query(named('seed', none)`INSERT INTO users (id) VALUES ('idle')`);
  let goOn = () => {};
  const idle = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const ended = caught(
    small.transaction(async (tx) => {
      await tx.query(named('hold', none)`SELECT 1 FROM users WHERE id = 'idle' FOR UPDATE`);
      await idle;
      await tx.query(named('late', none)`UPDATE users SET created_at = now() WHERE id = 'idle'`);
    }),
  );
  await gone('idler');
  goOn();
  const error = await ended;
  t.ok(isUnknownOutcome(error), String(error));
  await pool.query(named('free', none)`SELECT 1 FROM users WHERE id = 'idle' FOR UPDATE NOWAIT`);
  t.equal((await small.query(named('again', none)`SELECT 1`)).rowCount, 1);
  await small.end();
});

t.test('a deadline of our own bounds a backend that does not answer', async (t) => {
  const slow = pool.query(named('slow', z.object({}))`SELECT pg_sleep(0.3)`);
  const error = await caught(withDeadline(slow, 20));
  t.ok(error instanceof DatabaseTimeout);
  t.same(kindOf(error), { unknown: true, content: false, unavailable: false });
  await slow;
  t.equal(await withDeadline(Promise.resolve(1), 20), 1);
  await t.rejects(withDeadline(Promise.reject(new Error('own')), 20), { message: 'own' });
});
