import { setTimeout as wait } from 'node:timers/promises';
import type { CommonQueryMethods } from 'slonik';
import { readLastFrames } from '../db/proposals.js';
import {
  addTranscriptPart,
  type ClaimedTranscript,
  claimTranscript,
  finishTranscript,
  listTranscriptParts,
  type PartExtent,
  packPart,
} from '../db/transcripts.js';
import type { NumberedFrame } from '../streams/replay-window.js';
import type { RuntimeLog } from '../streams/runtime-log.js';
import type { Logger } from '../telemetry/logger.js';
import { createTurns } from './turns.js';

export interface TranscriptKeeperDeps {
  db: CommonQueryMethods;
  runtimeLog: RuntimeLog;
  /** No try is made while the runtime is known to be away. */
  runtimeAway: () => boolean;
  /** Of one transcript, before compression; beyond, the newest part is kept. */
  transcriptBytes: number;
  log: Pick<Logger, 'info' | 'warn'>;
  /** A clean-up that waited for a transcript has fallen due. */
  onCleanUpDue: () => void;
}

/** A transcript that the commit of the end left incomplete. */
interface IncompleteTranscript {
  proposalId: string;
  runtimeThreadId: string;
  epoch: string;
  generation: number;
  /** The last number that viewers have. */
  upTo: number;
  /** What this replica's window holds behind a number. */
  held: (after: number, bytes: number) => readonly NumberedFrame[];
}

/** Completes the transcripts of ended runs (`guarantees.md` 18): those of this replica's, and what others left. */
export interface TranscriptKeeper {
  /** From the window, then the runtime's log. Never rejects: what is not completed is left to a sweep, of any replica. */
  complete(transcript: IncompleteTranscript): Promise<void>;
  /** Takes over what is overdue, until nothing is. Never rejects; rounds do not overlap. */
  sweep(): Promise<void>;
  /** Nothing new is taken over; what is under way has 3 s to be completed, and is left to a sweep then. */
  stop(): Promise<void>;
}

/** Of frames in one row: what a reader has in memory. */
const PART_BYTES = 256 * 1024;
/** Of frames that are in memory at once while the runtime's log is read. */
const PIECE_BYTES = 4 * 1024 * 1024;
/** Transcripts that are worked on side by side: runs that end at once leave connections and memory for others. */
const AT_ONCE = 4;
/** The time between two doubles: the last is made half an hour after the end. */
const MAX_TRIES = 7;
const STOP_WAIT_MS = 3_000;

type Completion = 'done' | 'away' | 'lost';

export function createTranscriptKeeper(deps: TranscriptKeeperDeps): TranscriptKeeper {
  const { db, log } = deps;
  const underWay = new Set<Promise<void>>();
  const inTurn = createTurns(AT_ONCE);
  let stopping = false;
  let stopped = false;
  let sweeping: Promise<void> | null = null;

  async function fill(transcript: IncompleteTranscript): Promise<Completion> {
    const { proposalId, generation, epoch, upTo, runtimeThreadId: threadId } = transcript;
    const parts = await listTranscriptParts(db, { proposalId, epoch });
    let full = false;

    async function store(frames: readonly NumberedFrame[]): Promise<boolean> {
      for (let from = 0; from < frames.length; ) {
        const to = partEnd(frames, from);
        const stored = frames.slice(from, to).map(({ number, bytes }) => ({ seq: number, bytes }));
        const part = await packPart(stored);
        from = to;
        if (part === null) continue;
        addExtent(parts, part);
        full = dropOldest(parts, deps.transcriptBytes) || full;
        const keepFrom = parts[0]?.firstSeq ?? 0;
        if (part.firstSeq < keepFrom) continue;
        if (!(await addTranscriptPart(db, { proposalId, generation, part, keepFrom }))) return false;
      }
      return true;
    }

    // First what only this process has, and may lose.
    for (let after = 0; !stopped; ) {
      const frames = transcript.held(after, PART_BYTES);
      const last = frames.at(-1);
      if (last === undefined) break;
      if (!(await store(frames))) return 'lost';
      after = last.number;
    }
    for (let after = 0; after < upTo; ) {
      if (stopped) return 'away';
      const next = parts.find(({ lastSeq }) => lastSeq > after);
      if (next !== undefined && next.firstSeq <= after + 1) {
        after = next.lastSeq;
        continue;
      }
      const end = next === undefined ? upTo : next.firstSeq - 1;
      if (full && next === parts[0]) {
        // What is older than the oldest that is kept would be dropped again.
        after = end;
        continue;
      }
      const piece = await deps.runtimeLog.read({ threadId, epoch, after, upTo: end }, PIECE_BYTES);
      if (!(await store(piece.frames))) return 'lost';
      if (piece.rest === 'away') return 'away';
      if (piece.rest === 'gone') break;
      after = piece.rest === 'whole' ? end : (piece.frames.at(-1)?.number ?? end);
    }
    return 'done';
  }

  async function settle(transcript: IncompleteTranscript, lastTry: boolean): Promise<void> {
    const { proposalId } = transcript;
    if (stopped) return;
    const completion = await fill(transcript);
    if (completion === 'lost' || (completion === 'away' && (stopped || !lastTry))) return;
    if (!(await finishTranscript(db, transcript))) return;
    log.info({ proposal_id: proposalId, outcome: completion }, 'transcript finished');
    deps.onCleanUpDue();
  }

  /** What a replica that is gone left behind: all of it is in the runtime's log. */
  async function takeOver(claimed: ClaimedTranscript): Promise<void> {
    const last = await readLastFrames(db, claimed);
    const upTo = claimed.cleaned ? 0 : (last?.frames.at(-1)?.seq ?? 1) - 1;
    await settle({ ...claimed, upTo, held: () => [] }, claimed.tries >= MAX_TRIES);
  }

  async function sweepOne(): Promise<boolean> {
    if (stopping || deps.runtimeAway()) return false;
    const claimed = await claimTranscript(db);
    if (claimed === null) return false;
    await takeOver(claimed);
    return true;
  }

  async function guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      log.warn({ err: error }, 'a transcript could not be completed');
    }
  }

  function track(work: Promise<void>): Promise<void> {
    const tracked = work.finally(() => underWay.delete(tracked));
    underWay.add(tracked);
    return tracked;
  }

  async function sweepMore(): Promise<void> {
    while (await inTurn(sweepOne));
  }

  async function sweepAll(): Promise<void> {
    // One goes ahead: mostly nothing is due, or nothing can be asked.
    if (await inTurn(sweepOne)) await Promise.all(Array.from({ length: AT_ONCE }, () => guarded(sweepMore)));
  }

  return {
    complete: (transcript) => track(guarded(() => inTurn(() => settle(transcript, false)))),
    sweep() {
      sweeping ??= track(guarded(sweepAll)).finally(() => {
        sweeping = null;
      });
      return sweeping;
    },
    async stop() {
      stopping = true;
      await Promise.race([Promise.all(underWay), wait(STOP_WAIT_MS, undefined, { ref: false })]);
      stopped = true;
    },
  };
}

/** Where the part that begins with frame `from` ends: with the frame that fills it. */
function partEnd(frames: readonly NumberedFrame[], from: number): number {
  let size = 0;
  let to = from;
  while (to < frames.length && size < PART_BYTES) size += frames[to++]?.bytes.length ?? 0;
  return to;
}

function addExtent(parts: PartExtent[], { firstSeq, lastSeq, bytes }: PartExtent): void {
  const at = parts.findIndex((other) => other.firstSeq > firstSeq);
  parts.splice(at === -1 ? parts.length : at, 0, { firstSeq, lastSeq, bytes });
}

/** Drops the oldest parts beyond the limit; at least the newest stays. */
function dropOldest(parts: PartExtent[], limit: number): boolean {
  let total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const before = parts.length;
  while (parts.length > 1 && total > limit) total -= parts.shift()?.bytes ?? 0;
  return parts.length < before;
}
