import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import t from 'tap';
import { processIdentityOf } from '../../src/embedded/process-identity.js';
import { runtimeEnvironmentOf, startRuntimeProcess } from '../../src/embedded/runtime-process.js';
import { eventually } from '../support/until.js';

const entry = fileURLToPath(new URL('./stand-in-runtime.js', import.meta.url));
const log = pino({ level: 'silent' });
const common = {
  databaseUrl: 'postgresql://nobody@127.0.0.1/x',
  model: 'scripted',
  log,
  entry,
  restartBaseMs: 20,
};

interface Told {
  pid: number;
  env: Record<string, string>;
}
const ask = async (url: string): Promise<Told> => (await (await fetch(url)).json()) as Told;

const askUntilAnswered = async (url: string): Promise<Told> => {
  let told: Told | null = null;
  await eventually('an answer', async () => {
    told = await ask(url).catch(() => null);
    return told !== null;
  });
  return told as unknown as Told;
};

t.test('the runtime is handed out when it is ready, with an environment that was built for it', async (t) => {
  process.env.JWT_SECRET = 'not for the runtime';
  t.teardown(() => Reflect.deleteProperty(process.env, 'JWT_SECRET'));
  const env = runtimeEnvironmentOf({
    ...process.env,
    OPENAI_API_KEY: 'key',
    DATABASE_URL: 'secret',
    LOG_LEVEL: '',
  });
  const runtime = await startRuntimeProcess({ ...common, dataDir: t.testdir(), env });
  t.teardown(() => runtime.stop());
  const told = await ask(`${runtime.url}/ready`);
  t.match(told.env, { RUNTIME_HOST: '127.0.0.1', MODEL: 'scripted', OPENAI_API_KEY: 'key' });
  t.match(told.env.RUNTIME_DATABASE_URL, common.databaseUrl);
  for (const name of ['JWT_SECRET', 'DATABASE_URL', 'LOG_LEVEL']) t.equal(told.env[name], undefined, name);
});

t.test('a runtime that dies is started again at the same address', async (t) => {
  const runtime = await startRuntimeProcess({ ...common, dataDir: t.testdir(), env: {} });
  t.teardown(() => runtime.stop());
  const first = await ask(runtime.url);
  await t.rejects(fetch(`${runtime.url}/die`));
  t.not((await askUntilAnswered(runtime.url)).pid, first.pid);
});

t.test('a runtime that does not start is an error that quotes its log', async (t) => {
  const options = { ...common, dataDir: t.testdir(), env: { LOG_LEVEL: 'fail' } };
  await t.rejects(startRuntimeProcess(options), { message: /the stand-in refuses to start/ });
});

t.test('stopping leaves no process and no note', async (t) => {
  const dataDir = t.testdir();
  const runtime = await startRuntimeProcess({ ...common, dataDir, env: {} });
  const { pid } = await ask(runtime.url);
  await runtime.stop();
  t.equal(processIdentityOf(pid), undefined);
  t.strictSame(fs.readdirSync(dataDir), ['runtime.log']);
});
