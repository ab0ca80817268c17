/**
 * `npm test`: lint, one PostgreSQL for the whole suite, tap over all compiled tests, and what must hold after it:
 * no process left, coverage per folder. `npm test -- test/db/pool.test.ts` runs named files, without the rest.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pino from 'pino';
import { takeDataLock } from '../src/embedded/data-lock.js';
import { startEmbeddedPostgres } from '../src/embedded/postgres.js';
import { coverageOf, readSummary } from './suite/coverage.js';
import { groupTests } from './suite/groups.js';
import { endLeftovers, findLeftovers, markerName } from './suite/leftovers.js';
import { countResults } from './suite/results.js';

const root = process.cwd();
const coveredFolders = ['src/streams', 'src/actors', 'src/db', 'src/http', 'runtime/src'];
const testFolders = ['dist/test', 'runtime/dist/test', 'protocol/dist/test'];
const coverageAtLeast = 90;
const jobs = 5;
/**
 * For all tests of one process together, and the only limit that a test has unless it names one: some groups take half a minute
 * on a quiet machine, and a busy one may take many times as long.
 */
const secondsPerFile = 900;

/** Runs a node script of a package; resolves with its exit code. */
const runScript = (
  script: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<number> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(root, 'node_modules', script), ...args], {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, ...env },
    });
    // A signal to us alone (npm passes it on that way) must end the child; we stay to clean up after it.
    const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
    process.on('SIGINT', pass).on('SIGTERM', pass);
    child.on('error', reject);
    child.on('exit', (code) => {
      process.off('SIGINT', pass).off('SIGTERM', pass);
      resolve(code ?? 1);
    });
  });

const compiledTestsBelow = (folder: string): string[] =>
  fs.existsSync(folder)
    ? fs
        .readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.test.js'))
        .map((name) => path.join(folder, name))
        .sort()
    : [];

/** A source's compiled file; compiled files and folders are taken as they are. */
const compiledTestsOf = (name: string): string[] => {
  const relative = path.relative(root, path.resolve(name)).replace(/\.ts$/, '.js');
  const [workspace, ...rest] = relative.split(path.sep);
  const compiled = relative.split(path.sep).includes('dist')
    ? relative
    : workspace === 'runtime' || workspace === 'protocol'
      ? path.join(workspace, 'dist', ...rest)
      : path.join('dist', relative);
  return compiled.endsWith('.js') ? [compiled] : compiledTestsBelow(compiled);
};

/** A server for the tests and the way to end it; one that is named by TEST_DATABASE_URL is left alone. */
const startDatabase = async (): Promise<{ url: string; stop(): Promise<void> }> => {
  // The suite keeps its own data folder, so that it can run beside `npm start`.
  const dataDir = path.join(root, '.data', 'test');
  const lock = await takeDataLock({ dataDir, url: 'npm test' });
  const given = process.env.TEST_DATABASE_URL;
  if (given !== undefined && given !== '') return { url: given, stop: async () => lock.release() };
  const log = pino({ level: 'warn' }, pino.destination({ dest: 2, sync: true }));
  try {
    // Losing the machine's power loses nothing that anybody wants here.
    const settings = {
      fsync: 'off',
      full_page_writes: 'off',
      wal_level: 'minimal',
      max_wal_senders: '0',
      autovacuum: 'off',
    };
    const server = await startEmbeddedPostgres({ dataDir, log, settings, temporary: true });
    return {
      url: server.url('postgres'),
      stop: async () => {
        await server.stop();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
};

const checkLeftovers = async (marker: string): Promise<boolean> => {
  // A process that was told to stop may still be on its way out.
  let left = findLeftovers(marker);
  for (let tries = 0; left.length > 0 && tries < 200; tries += 1) {
    await wait(100);
    left = findLeftovers(marker);
  }
  for (const { pid, command } of left) console.log(`Left over: process ${pid}: ${command}`);
  endLeftovers(left);
  return left.length === 0;
};

const checkCoverage = (): boolean => {
  const report = path.join(root, '.tap', 'report', 'coverage-summary.json');
  // tap was ended before it could write one.
  if (!fs.existsSync(report)) return false;
  const summary = readSummary(report);
  const folders = coverageOf({ root, summary, folders: coveredFolders, atLeast: coverageAtLeast });
  console.log(`\nCoverage (at least ${coverageAtLeast} % of lines and branches of each folder)`);
  for (const { folder, lines, branches, unloaded, passed } of folders) {
    const verdict = passed ? '' : '  TOO LOW';
    console.log(
      `  ${folder.padEnd(14)} lines ${lines.toFixed(1)} %  branches ${branches.toFixed(1)} %${verdict}`,
    );
    for (const file of unloaded) console.log(`    never loaded: ${file}`);
  }
  return folders.every((folder) => folder.passed);
};

/**
 * tap comes built with its TypeScript plugin, and says so only after it has loaded it: whoever runs it first on a new
 * installation would run the compiled tests through a loader that some packages cannot stand.
 */
const buildTap = async (): Promise<boolean> => {
  const built = path.join(root, 'node_modules/@tapjs/test/test-built/dist/esm/index.js');
  if (!fs.readFileSync(built, 'utf8').includes('@tapjs/typescript')) return true;
  return (await runScript('tap/dist/esm/run.mjs', ['build'])) === 0;
};

const runTests = async (files: readonly string[], marker: string): Promise<boolean> => {
  if (!(await buildTap())) return false;
  const database = await startDatabase();
  // Between the children, too, a signal must not end us before PostgreSQL is stopped.
  const stay = (): void => undefined;
  process.on('SIGINT', stay).on('SIGTERM', stay);
  try {
    const args = [
      'run',
      `--jobs=${jobs}`,
      `--timeout=${secondsPerFile}`,
      `--reporter=${process.stdout.isTTY ? 'terse' : 'tap'}`,
      '--coverage-report=json-summary',
    ];
    const env = { TEST_DATABASE_URL: database.url, [markerName]: marker };
    return (await runScript('tap/dist/esm/run.mjs', [...args, ...files], env)) === 0;
  } finally {
    await database.stop();
    process.off('SIGINT', stay).off('SIGTERM', stay);
  }
};

const main = async (): Promise<void> => {
  const named = process.argv.slice(2);
  const files =
    named.length > 0
      ? named.flatMap(compiledTestsOf)
      : groupTests(testFolders.flatMap(compiledTestsBelow), 'dist/grouped');
  if (files.length === 0) throw new Error(`No test matches ${named.join(' ')}`);
  const faults: string[] = [];
  if (named.length === 0) {
    if ((await runScript('@biomejs/biome/bin/biome', ['check', '.'])) !== 0) faults.push('biome');
    if ((await runScript('knip/bin/knip.js', [])) !== 0) faults.push('knip');
  }
  fs.rmSync(path.join(root, '.tap'), { recursive: true, force: true });
  const marker = randomUUID();
  if (!(await runTests(files, marker))) faults.push('tests');
  if (!(await checkLeftovers(marker))) faults.push('processes left over');
  if (named.length === 0 && !checkCoverage()) faults.push('coverage');

  const { passed, failed, failures } = countResults(path.join(root, '.tap', 'test-results'));
  if (failed > 0 && !faults.includes('tests')) faults.push('tests');
  for (const failure of failures) console.log(`Failed: ${failure}`);
  if (faults.length > 0) console.log(`Not good: ${faults.join(', ')}`);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = faults.length > 0 ? 1 : 0;
};

await main();
