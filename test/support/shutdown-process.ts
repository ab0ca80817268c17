import { pino } from 'pino';
import { createShutdown } from '../../src/shutdown.js';

/** A process for the tests of the stop: `argv[2]` says which of its steps misbehaves. */
const manner = process.argv[2];
const say = (what: string): void => void process.stdout.write(`${what}\n`);
const shutdown = createShutdown({ graceMs: 300, log: pino({ level: 'silent' }) });
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
const alive = setInterval(() => undefined, 1_000);
if (manner === 'manual') shutdown.close();
if (manner === 'uncaught') setTimeout(() => Promise.reject(new Error('nobody caught this')), 1);
if (manner === 'uninstalled') {
  shutdown.uninstall();
  clearInterval(alive);
}
say('ready');
