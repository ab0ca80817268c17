import type { onReconnecting, onReset, onRetry, onSkipped, onSubscribed } from '@ide-orchestrator/protocol';
import type { z } from 'zod/v4';

type OwnFrame = z.infer<
  typeof onReconnecting | typeof onReset | typeof onRetry | typeof onSkipped | typeof onSubscribed
>;

/** The text of one of the orchestrator's own frames; none of them has a number. */
export function ownFrame(frame: OwnFrame): string {
  return JSON.stringify(frame);
}
