/** Someone who reads a log at their own pace. */
interface LogReader {
  /** There may be more to read. Called once per turn of the loop, however many events came. */
  wake(): void;
}

/**
 * The numbered events of one epoch of a run, encoded once. A reader keeps its own position: the log is
 * its buffer, so a slow one costs no memory and never slows the run.
 */
export interface EventLog {
  readonly epoch: number;
  /** The oldest number that is held; 0 before the first event. */
  readonly firstSeq: number;
  /** 0 before the first event. */
  readonly lastSeq: number;
  readonly state: 'open' | 'ended' | 'abandoned';
  /** Numbers, encodes and keeps an event; its number. */
  append(eventType: string, data: unknown): number;
  /** The same for `data` that is JSON text already. */
  appendJson(eventType: string, json: string): number;
  /** No more events: readers that have reached the end are done. */
  end(): void;
  /** This log will not be finished: its readers come back for the next epoch. */
  abandon(): void;
  /** The encoded event, or undefined where it is not, or no longer, held. */
  frame(seq: number): Buffer | undefined;
  attach(reader: LogReader): () => void;
}

/** Keeps the logs of a process within one budget. */
export interface EventLogStore {
  /** Begins a run's log; one before it is abandoned. */
  begin(threadId: string, epoch: number): EventLog;
  get(threadId: string): EventLog | undefined;
  drop(threadId: string): void;
  readonly bytes: number;
}

interface RingLog extends EventLog {
  readonly bytes: number;
  trimOldest(): void;
}

interface RingLogDeps {
  onEvent: (eventType: string) => void;
  onBytes: (added: number) => void;
  onEnded: () => void;
}

/** What an event costs beside its bytes: the Buffer's object. */
const frameOverhead = 100;

function createRingLog(epoch: number, deps: RingLogDeps): RingLog {
  // `frames[i]` is number `base + i + 1`; trimming moves `base`.
  let frames: Buffer[] = [];
  let base = 0;
  let bytes = 0;
  let state: EventLog['state'] = 'open';
  let waking = false;
  const readers = new Set<LogReader>();

  const wakeAll = (): void => {
    waking = false;
    for (const reader of readers) reader.wake();
  };
  const changed = (): void => {
    if (waking || readers.size === 0) return;
    waking = true;
    setImmediate(wakeAll);
  };
  const keep = (eventType: string, json: string): number => {
    const seq = base + frames.length + 1;
    const frame = Buffer.from(`{"seq":${seq},"event_type":${JSON.stringify(eventType)},"data":${json}}`);
    frames.push(frame);
    bytes += frame.length + frameOverhead;
    deps.onEvent(eventType);
    deps.onBytes(frame.length + frameOverhead);
    changed();
    return seq;
  };
  const close = (how: 'ended' | 'abandoned'): void => {
    if (state !== 'open') return;
    state = how;
    if (how === 'ended') deps.onEnded();
    changed();
  };

  return {
    epoch,
    get firstSeq() {
      return frames.length === 0 ? 0 : base + 1;
    },
    get lastSeq() {
      return base + frames.length;
    },
    get state() {
      return state;
    },
    get bytes() {
      return bytes;
    },
    append: (eventType, data) => keep(eventType, JSON.stringify(data)),
    appendJson: keep,
    end: () => close('ended'),
    abandon: () => close('abandoned'),
    frame: (seq) => (seq <= base ? undefined : frames[seq - base - 1]),
    attach(reader) {
      readers.add(reader);
      return () => readers.delete(reader);
    },
    trimOldest() {
      const going = Math.max(1, Math.ceil(frames.length / 8));
      const before = bytes;
      for (const frame of frames.slice(0, going)) bytes -= frame.length + frameOverhead;
      frames = frames.slice(going);
      base += going;
      deps.onBytes(bytes - before);
    },
  };
}

/**
 * Logs in memory. Beyond the budget the logs of finished runs go, oldest first (such a run is rebuilt
 * from its row when somebody asks); when only unfinished ones are left, the biggest loses its oldest
 * eighth, which its readers see as a hole and `first_seq` tells.
 * @param budgetBytes of all logs of the process together.
 */
export function createEventLogStore(
  deps: { onEvent: (eventType: string) => void },
  budgetBytes: number,
): EventLogStore {
  const logs = new Map<string, RingLog>();
  // Insertion order is the order of ending.
  const finished = new Map<string, RingLog>();
  let total = 0;

  const drop = (threadId: string): void => {
    const log = logs.get(threadId);
    if (log === undefined) return;
    logs.delete(threadId);
    finished.delete(threadId);
    total -= log.bytes;
    log.abandon();
  };
  const shrink = (): void => {
    for (const threadId of finished.keys()) {
      if (total <= budgetBytes) return;
      drop(threadId);
    }
    while (total > budgetBytes) {
      let biggest: RingLog | undefined;
      for (const log of logs.values())
        if (log.lastSeq > log.firstSeq && log.bytes > (biggest?.bytes ?? 0)) biggest = log;
      // One event that is bigger than the budget is kept: there is nothing to give up for it.
      if (biggest === undefined) return;
      biggest.trimOldest();
    }
  };

  return {
    get bytes() {
      return total;
    },
    get: (threadId) => logs.get(threadId),
    drop,
    begin(threadId, epoch) {
      drop(threadId);
      const isHeld = (): boolean => logs.get(threadId) === log;
      const log = createRingLog(epoch, {
        onEvent: deps.onEvent,
        onBytes(added) {
          if (!isHeld()) return;
          total += added;
          if (added > 0 && total > budgetBytes) shrink();
        },
        onEnded() {
          if (isHeld()) finished.set(threadId, log);
        },
      });
      logs.set(threadId, log);
      return log;
    },
  };
}
