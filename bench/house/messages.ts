import type { Summary } from '../relaying/latencies.js';

/** What the bench and its processes tell each other. */
export type LoadOrder =
  | { type: 'flood'; threads: string[]; frames: number; credit: number }
  | { type: 'pace'; threads: string[]; frames: number; perSecond: number }
  | { type: 'taken'; threads: string[]; counts: number[] }
  | { type: 'end'; threads: string[] }
  | { type: 'count' };

interface ViewerOrder {
  /** Index into the threads of the round. */
  thread: number;
  path: string;
}

export type ReaderOrder = {
  type: 'connect';
  port: number;
  headers: Record<string, string>;
  /** The server greets each viewer with a frame: only then it is connected. */
  greeted: boolean;
  viewers: ViewerOrder[];
  threads: number;
  /** Frames of each thread before its last state update and `end`. */
  frames: number;
};

export type RelayOrder = { type: 'open'; runtimePort: number; threads: string[] };

export interface ReaderReport {
  /** Numbered frames that all viewers got. */
  frames: number;
  /** Numbers that never came, or came twice, or were told as skipped. */
  lost: number;
  /** Viewers that were cut off before `end`. */
  cut: number;
  /** Between the sender's stamp and the reader's turn, ms; null without stamps. */
  latency: Summary | null;
}

export type PartNews =
  | { type: 'listening'; port: number }
  | { type: 'counted'; streams: number }
  | { type: 'opened' }
  | { type: 'connected' }
  | { type: 'progress'; counts: number[] }
  | { type: 'arrived'; report: ReaderReport }
  | { type: 'ended'; report: ReaderReport }
  | { type: 'failed'; reason: string };
