/** A process full of fast viewers: they take everything at once, check every number, and say how far they are. */
import process from 'node:process';
import type { ReaderOrder } from './house/messages.js';
import { hear, tell } from './house/part-side.js';
import { watchThreads } from './relaying/viewers.js';

hear<ReaderOrder>((order) => watchThreads(order, tell));
process.on('SIGTERM', () => process.exit(0));
tell({ type: 'opened' });
