import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import pino from 'pino';
import t from 'tap';
import { createTcpProxy } from '../../chaos/tcp-proxy.js';
import { startEmbedded } from '../../src/embedded/embedded.js';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import { withClient } from '../../src/embedded/postgres-server.js';
import { processIdentityOf } from '../../src/embedded/process-identity.js';
import { until } from '../support/until.js';

const log = pino({ level: 'silent' });
const startAndDie = fileURLToPath(new URL('./start-and-die.js', import.meta.url));
const databases = ['ide_orchestrator'];

const query = async <Row extends pg.QueryResultRow>(url: string, text: string): Promise<Row[]> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Row>(text)).rows;
  } finally {
    await client.end();
  }
};

const postmasterOf = (dataDir: string): number => {
  const { home } = JSON.parse(fs.readFileSync(path.join(dataDir, 'postgres.json'), 'utf8')) as {
    home: string;
  };
  return Number(fs.readFileSync(path.join(home, 'data', 'postmaster.pid'), 'utf8').split('\n')[0]);
};

const options = (dataDir: string) => ({
  config: {
    production: false,
    database: { url: null as string | null },
    runtime: { url: null as string | null },
    auth: { publicKeyPem: null, jwksUrl: null, secret: null },
  },
  dataDir,
  url: 'http://127.0.0.1:8080',
  model: 'scripted',
  runtimeEnvironment: {},
  log,
  runtimeEntry: fileURLToPath(new URL('./stand-in-runtime.js', import.meta.url)),
});

t.test('data outlive a restart, and every commit is on disk before it is answered', async (t) => {
  const dataDir = t.testdir();
  const first = await startEmbeddedPostgres({ dataDir, log, databases });
  const url = first.url('ide_orchestrator');
  await query(url, 'CREATE TABLE kept AS SELECT 7 AS number');
  t.strictSame(await query(url, 'SHOW synchronous_commit'), [{ synchronous_commit: 'on' }]);
  t.strictSame(await query(url, 'SHOW fsync'), [{ fsync: 'on' }]);
  await first.stop();
  const second = await startEmbeddedPostgres({ dataDir, log, databases });
  t.equal(second.url('ide_orchestrator'), url, 'at the same address');
  t.strictSame(await query(url, 'SELECT number FROM kept'), [{ number: 7 }]);
  await second.stop();
});

t.test('below a private folder PostgreSQL runs all the same', async (t) => {
  const dataDir = path.join(t.testdir(), 'private', '.data');
  fs.mkdirSync(path.dirname(dataDir), { mode: 0o700 });
  const server = await startEmbeddedPostgres({ dataDir, log, databases, temporary: true });
  const { home } = JSON.parse(fs.readFileSync(path.join(dataDir, 'postgres.json'), 'utf8')) as {
    home: string;
  };
  t.equal(home.startsWith(dataDir), process.getuid?.() !== 0, 'root needs a folder outside, others do not');
  t.strictSame(await query(server.url('ide_orchestrator'), 'SELECT 1 AS one'), [{ one: 1 }]);
  await server.stop();
  t.notOk(fs.existsSync(home), 'a temporary one leaves nothing behind');
});

t.test('a server that is slow to let somebody in is waited for', async (t) => {
  const server = await startEmbeddedPostgres({ dataDir: t.testdir(), log, temporary: true });
  const { port, password } = new URL(server.url('postgres'));
  const proxy = await createTcpProxy({ port: 0, targetPort: Number(port) });
  proxy.hold();
  const address = { port: proxy.port, password };
  const asked = withClient(address, (client) => client.query('SELECT 1 AS one')).catch(String);
  await wait(1_500);
  proxy.release();
  t.match(await asked, { rows: [{ one: 1 }] });
  await proxy.close();
  await server.stop();
});

t.test('a killed postmaster is started again at its address', async (t) => {
  const dataDir = t.testdir();
  const server = await startEmbeddedPostgres({ dataDir, log, databases });
  const url = server.url('ide_orchestrator');
  const pid = postmasterOf(dataDir);
  process.kill(pid, 'SIGKILL');
  const answers = async () => (await query(url, 'SELECT 1 AS one').catch(() => [])).length > 0;
  await until(async () => (await answers()) && postmasterOf(dataDir) !== pid);
  t.not(postmasterOf(dataDir), pid);
  t.strictSame(await query(url, 'SELECT 1 AS one').catch(() => []), [{ one: 1 }]);
  // Not as a teardown: the folder is removed beside those.
  await server.stop();
});

t.test('after kill -9 PostgreSQL is adopted and the runtime that was left is ended', async (t) => {
  const dataDir = t.testdir();
  const died = await promisify(execFile)(process.execPath, [startAndDie, dataDir]).catch(
    (error: { stdout: string; signal: string }) => error,
  );
  t.match(died, { signal: 'SIGKILL' });
  const told = JSON.parse(died.stdout) as { databaseUrl: string; runtimeUrl: string };
  const left = (await (await fetch(told.runtimeUrl)).json()) as { pid: number };
  const postmaster = postmasterOf(dataDir);

  const embedded = await startEmbedded(options(dataDir));
  t.equal(embedded.databaseUrl, told.databaseUrl);
  t.equal(postmasterOf(dataDir), postmaster, 'the same server goes on');
  const now = (await (await fetch(embedded.runtimeUrl)).json()) as { pid: number };
  t.not(now.pid, left.pid);
  t.equal(processIdentityOf(left.pid), undefined, 'the old runtime is gone');
  await embedded.stop();
  for (const pid of [postmaster, now.pid])
    t.equal(processIdentityOf(pid), undefined, 'nothing runs after stop');
  t.notOk(fs.existsSync(path.join(dataDir, 'lock.json')));
});

t.test('a PostgreSQL left behind that does not answer is replaced', async (t) => {
  const dataDir = t.testdir();
  await promisify(execFile)(process.execPath, [startAndDie, dataDir]).catch(() => undefined);
  const frozen = postmasterOf(dataDir);
  process.kill(frozen, 'SIGSTOP');
  const embedded = await startEmbedded(options(dataDir));
  t.not(postmasterOf(dataDir), frozen);
  t.strictSame(await query(embedded.databaseUrl, 'SELECT 1 AS one'), [{ one: 1 }]);
  await embedded.stop();
});

t.test('a second start beside a running one says where that is, and changes nothing', async (t) => {
  const dataDir = t.testdir();
  const child = spawn(process.execPath, [startAndDie, dataDir, 'stay'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const postmaster = postmasterOf(dataDir);
  await t.rejects(startEmbedded(options(dataDir)), {
    name: 'AlreadyRunningError',
    message: /127\.0\.0\.1:8080/,
  });
  t.equal(postmasterOf(dataDir), postmaster);
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  await (await startEmbedded(options(dataDir))).stop();
});

t.test('what the configuration names is used, and nothing is started beside it', async (t) => {
  const serverDir = t.testdir();
  const server = await startEmbeddedPostgres({ dataDir: serverDir, log });
  t.teardown(() => server.stop());
  const given = options(path.join(serverDir, 'unused'));
  given.config.database.url = server.url('by_hand');
  given.config.runtime.url = 'http://127.0.0.1:1';
  const embedded = await startEmbedded(given);
  t.match(embedded, { databaseUrl: server.url('by_hand'), runtimeUrl: 'http://127.0.0.1:1' });
  t.strictSame(fs.readdirSync(given.dataDir), ['dev-key.pem'], 'only the development key is kept');
  t.strictSame(
    await query(server.url('by_hand'), 'SELECT 1 AS one'),
    [{ one: 1 }],
    'the database was missing',
  );
  await embedded.stop();
});

t.test('a start that is called off half-way ends what it had started', async (t) => {
  const dataDir = t.testdir();
  const aborted = AbortSignal.abort(new Error('told to stop'));
  await t.rejects(startEmbedded({ ...options(dataDir), signal: aborted }), { message: 'told to stop' });
  t.strictSame(fs.readdirSync(dataDir), []);
});
