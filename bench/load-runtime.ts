/**
 * A process that speaks the runtime's API at any rate, without any agent. The bench commands it by messages;
 * started with `--frames N --rate R` each run sends by itself, from its first stream on.
 */
import process from 'node:process';
import { Command } from 'commander';
import type { LoadOrder } from './house/messages.js';
import { hear, tell } from './house/part-side.js';
import { createLoadServer } from './load/load-server.js';

const flags = new Command()
  .option('--frames <n>', 'frames of each run that sends by itself', Number)
  .option('--rate <n>', 'frames a second of each run that sends by itself', Number, 20)
  .parse()
  .opts<{ frames?: number; rate: number }>();

const auto = flags.frames === undefined ? null : { frames: flags.frames, perSecond: flags.rate };
const server = await createLoadServer({ auto });
hear<LoadOrder>((order) => {
  const { threads } = server;
  switch (order.type) {
    case 'flood':
      return threads.flood(order.threads, order.frames, order.credit);
    case 'pace':
      return threads.pace(order.threads, order.frames, order.perSecond);
    case 'taken':
      return threads.taken(order.threads, order.counts);
    case 'end':
      return threads.end(order.threads);
    case 'count':
      return tell({ type: 'counted', streams: threads.openStreams() });
  }
});
process.on('SIGTERM', () => process.exit(0));
tell({ type: 'listening', port: server.port });
