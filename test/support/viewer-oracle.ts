import type { FakeViewer } from './fake-viewer.js';

/** What a thread released, as a plain record: epochs in order, each with its frames and holes. */
export interface Released {
  epoch: string;
  frames: Map<number, string>;
  /** Numbers that never came. */
  missing: Set<number>;
}

/** Where one socket's account stands; `fault` names the first thing that is wrong with it. */
export interface Account {
  epoch: string;
  position: number;
  ends: number;
  fault: string | null;
}

interface Token {
  event_type: string;
  data: Record<string, unknown>;
}

/** Whether a merged frame is what the tokens that it stands for say together; they are of one message. */
function isMergedOf(merged: Token, texts: readonly (string | undefined)[]): boolean {
  const tokens = texts.map((text) => (text === undefined ? null : (JSON.parse(text) as Token)));
  const { content: whole, ...about } = merged.data;
  let content = '';
  for (const token of tokens) {
    if (token?.event_type !== 'on_llm_stream' || merged.event_type !== 'on_llm_stream') return false;
    const { content: part, ...rest } = token.data;
    if (JSON.stringify(rest) !== JSON.stringify(about)) return false;
    content += String(part);
  }
  return content === whole;
}

/**
 * Reads what one socket received as its owner would: every number exactly once, as a frame or inside a range, in
 * the epoch that it was told of, and each frame as it was released. `lossless` = nothing may be left out on purpose.
 */
export function accountOf(
  viewer: FakeViewer,
  released: Map<string, Released>,
  after: number,
  lossless: boolean,
): Account {
  const account: Account = { epoch: '', position: 0, ends: 0, fault: null };
  const fail = (fault: string) => {
    account.fault ??= fault;
  };
  viewer.received.forEach(({ first_seq: merged, seq, event_type, data }, index) => {
    if ((index === 0) !== (event_type === 'on_subscribed')) fail('on_subscribed comes first, and once');
    if (account.ends > 0) fail(`${event_type} after the end`);
    if (event_type === 'on_subscribed') {
      account.epoch = String(data.epoch);
      account.position = data.recovery === 'reset' ? 0 : after;
      const exact = data.recovery === 'exact';
      const begun = viewer.received.find((frame) => frame.seq !== undefined);
      const first = begun?.first_seq ?? begun?.seq;
      const reset = viewer.received.some((frame) => frame.event_type === 'on_reset');
      if (!reset && first !== undefined && data.first_seq !== 0 && data.first_seq !== first) {
        const skipped = viewer.received.find((frame) => frame.event_type === 'on_skipped');
        if (skipped === undefined) fail(`first_seq ${data.first_seq}, but ${first} came first`);
      }
      if (exact && Number(data.first_seq) > account.position + 1) fail('exact, but not the next number');
    } else if (event_type === 'on_reset' || event_type === 'on_retry') {
      account.epoch = String(data.epoch);
      account.position = 0;
    } else if (event_type === 'on_skipped') {
      const { first_seq: first, last_seq: last } = data as { first_seq: number; last_seq: number };
      if (first !== account.position + 1 || last < first)
        fail(`on_skipped ${first}-${last} at ${account.position}`);
      const missing = released.get(account.epoch)?.missing;
      for (let number = first; lossless && number <= last; number++) {
        if (!missing?.has(number)) fail(`${number} was left out`);
      }
      account.position = last;
    } else if (seq !== undefined && merged !== undefined) {
      if (merged !== account.position + 1 || seq < merged)
        fail(`${merged}-${seq} at ${account.position} of ${account.epoch}`);
      const frames = released.get(account.epoch)?.frames;
      const texts = Array.from({ length: seq - merged + 1 }, (_, at) => frames?.get(merged + at));
      if (!isMergedOf({ event_type, data }, texts)) fail(`${merged}-${seq} is not what was released`);
      if (lossless) fail(`${merged}-${seq} were merged for a viewer that keeps up`);
      account.position = seq;
    } else if (seq !== undefined) {
      if (seq !== account.position + 1) fail(`${seq} at ${account.position} of ${account.epoch}`);
      const expected = released.get(account.epoch)?.frames.get(seq);
      const got = JSON.stringify({ seq, event_type, data });
      if (expected !== got) fail(`${seq} of ${account.epoch} is not what was released`);
      account.position = seq;
      if (event_type === 'end') account.ends++;
    }
  });
  return account;
}
