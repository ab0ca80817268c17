/** What a viewer saw, in the order in which it saw it. */
export type Entry =
  | {
      kind: 'subscribed';
      /** What was asked for; null on the first connection. */
      asked: { epoch: string; seq: number } | null;
      epoch: string;
      recovery: 'exact' | 'compacted' | 'reset';
    }
  /** `on_reset` or `on_retry`: another epoch follows from 1. */
  | { kind: 'begin'; epoch: string }
  | { kind: 'skipped'; first: number; last: number }
  | {
      kind: 'frame';
      /** Below `seq` where frames were merged. */
      first: number;
      seq: number;
      type: string;
      /** Of the bytes. */
      print: string;
      /** Of a token, to compare merged ones with their parts. */
      text: string | null;
    };

export interface EndSeen {
  /** Milliseconds since 1970. */
  at: number;
  epoch: string;
  status: string;
  /** path → sha256. */
  files: Readonly<Record<string, string | null>>;
}

export interface ViewerLog {
  viewer: string;
  threadId: string;
  /** It came back whenever it was cut off, until the end. */
  stayed: boolean;
  entries: Entry[];
  ends: EndSeen[];
}
