import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { coverageOf } from '../../scripts/suite/coverage.js';
import { groupTests } from '../../scripts/suite/groups.js';
import { endLeftovers, findLeftovers, markerName } from '../../scripts/suite/leftovers.js';
import { countResults } from '../../scripts/suite/results.js';
import { until } from '../support/until.js';

t.test('coverage is judged per folder, with files that no test loads as not covered', async (t) => {
  const root = t.testdir({
    src: {
      db: { 'good.ts': 'x\n'.repeat(9), 'types.ts': 'interface A {}\n', 'never.ts': 'y\n'.repeat(9) },
      http: { 'good.ts': 'x\n' },
    },
    dist: {
      src: { db: { 'types.js': 'export {};\n//# sourceMappingURL=types.js.map', 'never.js': 'run();\n' } },
    },
  });
  const counts = (covered: number) => ({
    lines: { total: 10, covered },
    branches: { total: 10, covered },
  });
  const summary = {
    [path.join(root, 'src/db/good.ts')]: counts(10),
    [path.join(root, 'src/http/good.ts')]: counts(9),
  };
  const folders = coverageOf({ root, summary, folders: ['src/db', 'src/http', 'src/none'], atLeast: 90 });
  t.match(folders, [
    { folder: 'src/db', lines: 50, passed: false, unloaded: ['src/db/never.ts'] },
    { folder: 'src/http', lines: 90, branches: 90, passed: true, unloaded: [] },
  ]);
  t.equal(folders.length, 2, 'a folder that does not exist is left out');
});

t.test('results are counted by named tests, without those that were skipped', async (t) => {
  const folder = t.testdir({
    a: {
      'one.test.js.tap': [
        'TAP version 14',
        '# Subtest: works',
        '    ok 1 - inner',
        '    1..1',
        'ok 1 - works # time=1.5ms',
        'not ok 2 - breaks # time=2ms',
        '  ---',
        '  ...',
        'ok 3 - not here # SKIP needs root',
        'not ok 4 - some day # TODO',
        'ok 5 - issue #7 is gone',
        '1..5',
      ].join('\n'),
    },
  });
  t.strictSame(countResults(folder), { passed: 2, failed: 1, failures: ['a/one.test.js: breaks'] });
  t.match(countResults(path.join(folder, 'none')), { passed: 0, failed: 0 });
});

t.test(
  'a forgotten process is found by what it inherited',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const marker = randomUUID();
    const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore', env: { [markerName]: marker } });
    t.teardown(() => child.kill('SIGKILL'));
    await until(() => findLeftovers(marker).some(({ command }) => command === 'sleep 60'));
    const found = findLeftovers(marker);
    t.match(found, [{ pid: child.pid, command: 'sleep 60' }]);
    endLeftovers(found);
    await new Promise((resolve) => child.once('exit', resolve));
    t.strictSame(findLeftovers(marker), []);
    t.doesNotThrow(() => endLeftovers(found));
  },
);

t.test('preparing a clone that is ready starts nothing and says nothing', async (t) => {
  // The suite itself was prepared a moment ago, so this is the case that every start meets.
  const script = path.resolve('scripts', 'prepare.mjs');
  t.ok(fs.existsSync(script));
  const { installReason, isBuilt } = (await import(script)) as Record<string, () => unknown>;
  t.equal(installReason?.(), undefined);
  t.type(isBuilt?.(), 'boolean', 'at once, from files alone');
});

t.test('test files of one folder share processes, each file in one of them', async (t) => {
  const folder = path.join(t.testdir({}), 'grouped');
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, 'of-an-earlier-run.test.js'), '');
  const files = [
    'dist/test/http/a.test.js',
    ...Array.from({ length: 7 }, (_, index) => `dist/test/http/${index}.test.js`),
    'dist/test/e2e/one.test.js',
    'dist/test/e2e/two.test.js',
    'dist/test/alone.test.js',
  ];
  const groups = groupTests(files, folder);
  const alone = groups.filter((group) => !group.startsWith(folder));
  t.strictSame(alone, ['dist/test/e2e/one.test.js', 'dist/test/e2e/two.test.js', 'dist/test/alone.test.js']);
  const written = fs.readdirSync(folder);
  t.strictSame(
    written.map((name) => path.join(folder, name)),
    groups.filter((group) => !alone.includes(group)),
  );
  const imported = written.flatMap((name) =>
    [...fs.readFileSync(path.join(folder, name), 'utf8').matchAll(/import\('(.+)'\)/g)].map(([, file = '']) =>
      path.relative(process.cwd(), path.resolve(folder, file)),
    ),
  );
  t.strictSame([...imported, ...alone].sort(), [...files].sort());
});
