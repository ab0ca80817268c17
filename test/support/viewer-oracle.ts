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
  viewer.received.forEach(({ first_seq, seq, event_type, data }, index) => {
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
    } else if (event_type === 'on_reset') {
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
    } else if (seq !== undefined) {
      const first = first_seq ?? seq;
      if (first !== account.position + 1) fail(`${first} at ${account.position} of ${account.epoch}`);
      const frames = released.get(account.epoch)?.frames;
      if (first_seq !== undefined) {
        const { content, ...about } = data;
        let joined = '';
        for (let number = first_seq; number <= seq; number++) {
          const one = JSON.parse(frames?.get(number) ?? '{"data":{}}') as {
            event_type: string;
            data: object;
          };
          const { content: part, ...rest } = one.data as { content?: string };
          joined += part ?? '';
          if (one.event_type !== 'on_llm_stream' || JSON.stringify(rest) !== JSON.stringify(about))
            fail(`${number} of ${account.epoch} does not belong to ${first_seq}-${seq}`);
        }
        if (joined !== content) fail(`${first_seq}-${seq} of ${account.epoch} are merged to something else`);
        if (lossless) fail(`${first_seq}-${seq} were merged for a viewer that keeps up`);
      } else {
        const got = JSON.stringify({ seq, event_type, data });
        if (frames?.get(seq) !== got) fail(`${seq} of ${account.epoch} is not what was released`);
      }
      account.position = seq;
      if (event_type === 'end') account.ends++;
    }
  });
  return account;
}
