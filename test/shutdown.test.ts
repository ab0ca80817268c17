import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';

const program = fileURLToPath(new URL('./support/shutdown-process.js', import.meta.url));

/** Starts the process, does `then` once it is ready, and tells its exit code and what it said. */
async function outcomeOf(
  manner: string,
  then: (
    kill: (signal: NodeJS.Signals) => void,
    said: (line: string) => Promise<void>,
  ) => Promise<void> | void,
) {
  const child = spawn(process.execPath, [program, manner], { stdio: ['ignore', 'pipe', 'inherit'] });
  // Not `exit`: what it said last may still be on its way.
  const exit = once(child, 'close');
  const lines: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(...text.trim().split('\n')));
  await once(child.stdout, 'data');
  await then(
    (signal) => child.kill(signal),
    async (line) => {
      while (!lines.includes(line)) await once(child.stdout, 'data');
    },
  );
  const [code] = await exit;
  return { code, lines: lines.filter((line) => line !== 'ready') };
}

test('a signal runs the steps in their order and ends with 0', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    t.same(await outcomeOf('good', (kill) => kill(signal)), { code: 0, lines: ['first', 'second'] });
  }
  t.same(await outcomeOf('manual', () => undefined), { code: 0, lines: ['first', 'second'] });
});

test('the last lines of the log leave whole and in their order', async (t) => {
  const { code, lines } = await outcomeOf('talkative', (kill) => kill('SIGTERM'));
  t.equal(code, 0);
  const logged = lines.join('').match(/"msg":"[^"]*"/g);
  const expected = ['stopping', ...Array.from({ length: 200 }, (_, number) => `line ${number}`), 'stopped'];
  t.same(
    logged,
    expected.map((msg) => `"msg":"${msg}"`),
  );
});

test('a step that fails does not keep the later ones from running, and the exit code tells', async (t) => {
  t.same(await outcomeOf('failing', (kill) => kill('SIGTERM')), { code: 1, lines: ['first', 'second'] });
});

test('an uncaught error stops in order too, and ends with 1', async (t) => {
  t.same(await outcomeOf('uncaught', () => undefined), { code: 1, lines: ['first', 'second'] });
});

test('a stop that takes longer than its grace is cut', async (t) => {
  t.match(await outcomeOf('hanging', (kill) => kill('SIGTERM')), { code: 1 });
});

test('a second signal ends the process at once', async (t) => {
  // Its second step hangs, and its grace is longer than this test may take.
  const { code } = await outcomeOf('twice', async (kill, said) => {
    kill('SIGTERM');
    await said('second');
    kill('SIGTERM');
  });
  t.equal(code, 1);
});

test('uninstalled, it leaves the process alone', async (t) => {
  t.same(await outcomeOf('uninstalled', () => undefined), { code: 0, lines: [] });
});
