import { isDeepStrictEqual } from 'node:util';
import { parseFrame } from './decode-frame.js';
import type { NumberedFrame } from './replay-window.js';

/** Tokens of one message in one frame, for a viewer that lags. */
export interface MergedTokens {
  /** The last of the numbers that it stands for. */
  number: number;
  /** How many frames are in it. */
  count: number;
  /** Bytes of those frames. */
  from: number;
  bytes: Buffer;
}

/** Characters of content above which no further frame is taken in. */
const MERGED_CHARACTERS = 4 * 1024;
const TOKEN = Buffer.from('"event_type":"on_llm_stream"');
/** A token in the usual form says so within its first bytes. */
const HEAD_BYTES = 64;

interface TokenData {
  content: string;
  calls: readonly unknown[];
  /** Everything else: what says whose message it is. */
  about: Record<string, unknown>;
}

/**
 * Merges the tokens that begin with `first` and follow each other without a hole in `next`, as long as they belong to
 * the same message; null where there is nothing to merge. Their contents and pieces of tool calls are put together,
 * every other member is the same in all of them. The frame carries `first_seq` beside `seq` (protocol.md §3).
 */
export function mergeTokens(
  first: NumberedFrame,
  next: (after: number) => NumberedFrame | null,
): MergedTokens | null {
  const begun = tokenOf(first.bytes);
  if (begun === null) return null;
  let { content } = begun;
  const calls = [...begun.calls];
  let number = first.number;
  let from = first.bytes.length;
  while (content.length < MERGED_CHARACTERS) {
    const following = next(number);
    if (following === null || following.number !== number + 1) break;
    const token = tokenOf(following.bytes);
    if (token === null || !isDeepStrictEqual(token.about, begun.about)) break;
    content += token.content;
    calls.push(...token.calls);
    number = following.number;
    from += following.bytes.length;
  }
  if (number === first.number) return null;
  const data = { content, ...begun.about, ...(calls.length === 0 ? {} : { tool_call_chunks: calls }) };
  const frame = { first_seq: first.number, seq: number, event_type: 'on_llm_stream', data };
  return { number, count: number - first.number + 1, from, bytes: Buffer.from(JSON.stringify(frame)) };
}

/** What a token holds; null for any other frame, and for tokens of older runtimes (`raw_event`), which nobody can merge. */
function tokenOf(bytes: Buffer): TokenData | null {
  if (!bytes.subarray(0, HEAD_BYTES).includes(TOKEN)) return null;
  const frame = parseFrame(bytes);
  const data = frame?.data;
  if (frame === null || Object.keys(frame).length !== 3 || typeof data !== 'object' || data === null)
    return null;
  const { content, tool_call_chunks: calls = [], ...about } = data as Record<string, unknown>;
  return typeof content === 'string' && Array.isArray(calls) ? { content, calls, about } : null;
}
