import { createShutdown } from '../../src/shutdown.js';
import { createLogger } from '../../src/telemetry/logger.js';

/** A process for the tests of the stop: `argv[2]` says which of its steps misbehaves. */
const manner = process.argv[2];
const say = (what: string): void => void process.stdout.write(`${what}\n`);
const log = createLogger({ level: manner === 'talkative' ? 'info' : 'silent', production: false });
const shutdown = createShutdown({ graceMs: manner === 'hanging' ? 300 : 60_000, log });
shutdown.add('first', async () => {
  await new Promise((resolve) => setTimeout(resolve, 20));
  say('first');
  if (manner === 'failing') throw new Error('first failed');
});
shutdown.add('second', () => {
  say('second');
  if (manner === 'hanging' || manner === 'twice') return new Promise(() => undefined);
  return undefined;
});
if (manner === 'talkative')
  shutdown.add('third', async () => {
    for (let number = 0; number < 200; number++) {
      log.info(`line ${number}`);
      // Some are under way when the process exits, and some wait.
      if (number % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
const alive = setInterval(() => undefined, 1_000);
if (manner === 'manual') shutdown.close();
if (manner === 'uncaught') setTimeout(() => Promise.reject(new Error('nobody caught this')), 1);
if (manner === 'uninstalled') {
  shutdown.uninstall();
  clearInterval(alive);
}
say('ready');
