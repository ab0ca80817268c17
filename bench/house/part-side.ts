import process from 'node:process';
import type { PartNews } from './messages.js';

/** To the process that started this one; nothing where it was started by hand. */
export function tell(news: PartNews): void {
  process.send?.(news);
}

/** Hears the bench's orders, and ends with it: whatever kills the bench must leave nothing running. */
export function hear<Order>(take: (order: Order) => void): void {
  process.on('message', (order) => take(order as Order));
  process.on('disconnect', () => process.exit(0));
  // Ctrl-C goes to the whole group; the bench ends its parts itself, in order.
  process.on('SIGINT', () => undefined);
}
