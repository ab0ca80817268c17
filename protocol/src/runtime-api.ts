import { z } from 'zod/v4';
import { limits } from './limits.js';

/** One file on the runtime's wire: its text is its lines joined by `\n`. */
export const wireFile = z.looseObject({
  content: z.array(z.string()),
  created_at: z.string().optional(),
  modified_at: z.string().optional(),
});
export type WireFile = z.infer<typeof wireFile>;

/** The whole map of files; `null` for a file that the run was given and deleted. */
export const wireFiles = z.record(z.string(), wireFile.nullable());
export type WireFiles = z.infer<typeof wireFiles>;

export const chatMessage = z.looseObject({ role: z.string().min(1), content: z.string() });

/** Body of `POST /deepagents-runtime/invoke`: unknown fields are refused at the top level only. */
export const invokeRequest = z.strictObject({
  trace_id: z.string().min(1).max(255),
  job_id: z.string().min(1).max(limits.runtimeThreadIdCharacters),
  agent_definition: z.record(z.string(), z.unknown()),
  input_payload: z.looseObject({
    messages: z.array(chatMessage).min(1),
    files: z.record(z.string(), wireFile).optional(),
  }),
});
export type InvokeRequest = z.infer<typeof invokeRequest>;

export const invokeResponse = z.looseObject({
  thread_id: z.string().min(1).max(limits.runtimeThreadIdCharacters),
  status: z.literal('started'),
});
export type InvokeResponse = z.infer<typeof invokeResponse>;

/** `data` of an `error` frame, and `error` of `state`. A missing `retryable` counts as true. */
export const runtimeError = z.looseObject({
  code: z.string().optional(),
  message: z.string().optional(),
  retryable: z.boolean().optional(),
});
export type RuntimeError = z.infer<typeof runtimeError>;

export const runtimeState = z.looseObject({
  thread_id: z.string(),
  status: z.enum(['running', 'completed', 'failed']),
  result: z.unknown().optional(),
  generated_files: z.record(z.string(), z.unknown()).nullish(),
  error: runtimeError.nullish(),
});
export type RuntimeState = z.infer<typeof runtimeState>;

export const runtimeProblem = z.looseObject({ code: z.string(), message: z.string() });
export type RuntimeProblem = z.infer<typeof runtimeProblem>;

/** `data` of the runtime's first frame. */
export const runtimeOpening = z.looseObject({
  epoch: z.int().min(1),
  first_seq: z.int().min(0),
  last_seq: z.int().min(0),
});
export type RuntimeOpening = z.infer<typeof runtimeOpening>;

/** A frame from the runtime. `seq` is there where the runtime numbers. */
export const runtimeFrame = z.looseObject({
  seq: z.int().min(1).optional(),
  event_type: z.string().min(1),
  data: z.unknown().optional(),
});
export type RuntimeFrame = z.infer<typeof runtimeFrame>;

/** What the runtime takes from the reader of a stream. */
export const runtimeStreamMessage = z.discriminatedUnion('type', [
  z.looseObject({ type: z.literal('cancel') }),
  z.looseObject({ type: z.literal('message'), content: z.string().min(1) }),
]);
export type RuntimeStreamMessage = z.infer<typeof runtimeStreamMessage>;

export const cloudEventType = 'agent.execute';
