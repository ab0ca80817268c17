import { z } from 'zod/v4';
import { proposalPhase, proposalStatus, warning } from './rest-api.js';
import { sha256, uuid } from './text.js';

/** How a viewer's position was answered. */
export const recovery = z.enum(['exact', 'compacted', 'reset']);
export type Recovery = z.infer<typeof recovery>;

const own = <K extends string, D extends z.ZodType>(kind: K, data: D) =>
  z.object({ event_type: z.literal(kind), data });

/** The orchestrator's own frames: none of them ever has a `seq`. */
export const onSubscribed = own(
  'on_subscribed',
  z.object({
    thread_id: uuid,
    proposal_id: uuid,
    status: proposalStatus,
    phase: proposalPhase.nullable(),
    epoch: z.string(),
    first_seq: z.int().min(0),
    last_seq: z.int().min(0),
    recovery,
    trace_id: z.string(),
  }),
).meta({ id: 'OnSubscribed' });
export type OnSubscribedData = z.infer<typeof onSubscribed>['data'];
export const onRetry = own(
  'on_retry',
  z.object({ attempt: z.int(), max: z.int(), delay_ms: z.int(), epoch: z.string() }),
).meta({ id: 'OnRetry' });
export const onReset = own('on_reset', z.object({ epoch: z.string(), reason: z.string() })).meta({
  id: 'OnReset',
});
export const onReconnecting = own('on_reconnecting', z.looseObject({})).meta({ id: 'OnReconnecting' });
export const onSkipped = own('on_skipped', z.object({ first_seq: z.int(), last_seq: z.int() })).meta({
  id: 'OnSkipped',
});
export const onPong = own('on_pong', z.looseObject({})).meta({ id: 'OnPong' });
export const onTokenAccepted = own('on_token_accepted', z.object({ expires_at: z.string() })).meta({
  id: 'OnTokenAccepted',
});
export const onRejected = own('on_rejected', z.looseObject({ code: z.string(), message: z.string() })).meta({
  id: 'OnRejected',
});

const numbered = <K extends string, D extends z.ZodType>(kind: K, data: D) =>
  z.looseObject({ seq: z.int().min(1), event_type: z.literal(kind), data });

/** Frames of the run. Those of the runtime are passed on unchanged; unknown kinds are passed on too. */
export const onLlmStream = numbered('on_llm_stream', z.looseObject({}))
  .extend({
    first_seq: z
      .int()
      .min(1)
      .optional()
      .describe('Only for a slow viewer: the frame stands for the numbers from here to `seq`, put together'),
  })
  .meta({ id: 'OnLlmStream' });
export const onStateUpdate = numbered('on_state_update', z.looseObject({})).meta({ id: 'OnStateUpdate' });
export const onToolStart = numbered('on_tool_start', z.looseObject({})).meta({ id: 'OnToolStart' });
export const onToolEnd = numbered('on_tool_end', z.looseObject({})).meta({ id: 'OnToolEnd' });
export const errorFrame = numbered(
  'error',
  z.looseObject({
    code: z.string().optional(),
    message: z.string().optional(),
    retryable: z.boolean().optional(),
  }),
).meta({ id: 'ErrorFrame' });
export const endFrame = numbered(
  'end',
  z.object({
    proposal_id: uuid,
    status: proposalStatus,
    files: z.record(z.string(), sha256.nullable()),
    warnings: z.array(warning),
  }),
).meta({ id: 'EndFrame' });
export type EndFrame = z.infer<typeof endFrame>;

export const ownFrames = [
  onSubscribed,
  onRetry,
  onReset,
  onReconnecting,
  onSkipped,
  onPong,
  onTokenAccepted,
  onRejected,
] as const;
export const runFrames = [onLlmStream, onStateUpdate, onToolStart, onToolEnd, errorFrame, endFrame] as const;

/** What a viewer sends. Other objects are passed to the run as they are, from an owner. */
export const viewerPing = z.looseObject({ type: z.literal('ping') }).meta({ id: 'ViewerPing' });
export const viewerToken = z
  .looseObject({ type: z.literal('token'), token: z.string() })
  .meta({ id: 'ViewerToken' });
export const viewerCancel = z.looseObject({ type: z.literal('cancel') }).meta({ id: 'ViewerCancel' });
export const viewerMessage = z
  .looseObject({ type: z.literal('message'), content: z.string() })
  .meta({ id: 'ViewerMessage' });
export const viewerMessages = [viewerPing, viewerToken, viewerCancel, viewerMessage] as const;
