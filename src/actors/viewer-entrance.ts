import type { ReadAgain, SubscribedFacts } from '../streams/fan-out.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import type { Viewer, ViewerPosition } from '../streams/viewer.js';
import type { Attachment } from './thread-directory.js';

export interface ViewerEntranceDeps {
  pipeline: ThreadPipeline;
  facts: () => SubscribedFacts;
  /** The row has ended: its last frames are there, or are being read. */
  isFinal: () => boolean;
  isStopped: () => boolean;
  /** The epoch that the row named when it was read last. */
  rowEpoch: () => string;
  /** Resolves with the next thing that happens to the thread, or after so many milliseconds. */
  happens: (milliseconds: number) => Promise<unknown>;
  sleep: (milliseconds: number) => Promise<void>;
  now: () => number;
  /** Hands a message of the viewer to the run; false where none is open. */
  sendToRun: (message: Buffer | string) => boolean;
}

/** Viewers wait this long for the runtime's word on their position. */
const POSITION_WAIT_MS = 5_000;
/** And this long for frames that have to be read again. */
const OLDER_WAIT_MS = 5_000;
/** And this long for numbers that another replica may have seen first. */
const AHEAD_WAIT_MS = 1_000;
const FIRST_EPOCH = '1.1';

/** Lets viewers in: a position is judged only when this replica knows the log that it belongs to. */
export function createViewerEntrance(deps: ViewerEntranceDeps) {
  const { pipeline, now } = deps;
  const { fanOut } = pipeline;

  /** Whether the position lies in what is still being read of the log: the runtime has named it. */
  const isNamedByRun = ({ after = 0, epoch = FIRST_EPOCH }: ViewerPosition) =>
    !pipeline.finished() &&
    pipeline.known() &&
    epoch === fanOut.epoch() &&
    after > fanOut.lastReleased() &&
    after <= pipeline.told();

  /** Whether the log is known: false where the runtime has not told of it in time. */
  async function judgeable(position: ViewerPosition, gone: () => boolean): Promise<boolean> {
    const until = now() + POSITION_WAIT_MS;
    const known = () => pipeline.known() || pipeline.finished();
    while (!known() && !gone() && now() < until) await deps.happens(until - now());
    if (!known()) return false;
    const aheadUntil = now() + AHEAD_WAIT_MS;
    const ahead = () =>
      !pipeline.finished() &&
      !isNamedByRun(position) &&
      (position.epoch ?? FIRST_EPOCH) === fanOut.epoch() &&
      (position.after ?? 0) > fanOut.lastReleased();
    while (ahead() && !gone() && now() < aheadUntil) await deps.sleep(20);
    return true;
  }

  /**
   * Whether the position is in a log that this replica has not heard of, its own connection to the runtime being away or
   * held up: another replica is ahead. To answer from the log before would show the viewer again what is void.
   */
  const isBehind = (position: ViewerPosition) =>
    !pipeline.finished() && isLaterEpoch(position.epoch ?? FIRST_EPOCH, fanOut.epoch());

  /**
   * Whether that log may be there: the row names it, or nothing is heard of the run here, while another replica may read
   * what the owner has not noted yet. Any other is foreign, and reset.
   */
  const isNamed = (position: ViewerPosition) =>
    !pipeline.hears() || !isLaterEpoch(position.epoch ?? FIRST_EPOCH, deps.rowEpoch());

  /** What the viewer lacks and the window no longer holds: its position is exact where that can still be had. */
  async function readAgain(position: ViewerPosition): Promise<ReadAgain | null> {
    const missing = fanOut.missing(position);
    if (missing === null || pipeline.older === null) return null;
    const read = pipeline.older.read(missing.epoch, missing.after, missing.upTo);
    return { ...missing, frames: await Promise.race([read, deps.sleep(OLDER_WAIT_MS).then(() => [])]) };
  }

  return async function attach(viewer: Viewer, position: ViewerPosition): Promise<Attachment> {
    let left = false;
    const gone = () => left || viewer.isClosed();
    let member: ReturnType<typeof fanOut.join> | null = null;
    const attachment: Attachment = {
      detach() {
        left = true;
        member?.leave();
      },
      drained: () => member?.drained(),
      sendToRun: deps.sendToRun,
    };
    const came = now();
    const waitMs = () => (isNamed(position) ? POSITION_WAIT_MS : AHEAD_WAIT_MS);
    while (isBehind(position) && !gone() && !deps.isStopped() && now() - came < waitMs())
      await deps.sleep(20);
    const judged = position.after === undefined || (await judgeable(position, gone));
    const until = now() + POSITION_WAIT_MS;
    while (deps.isFinal() && !pipeline.finished() && !gone() && now() < until)
      await deps.happens(until - now());
    if (gone()) return attachment;
    if (deps.isStopped()) {
      viewer.close(1012, 'restarting');
      return attachment;
    }
    if (isBehind(position) && isNamed(position)) {
      viewer.close(1013, 'behind');
      return attachment;
    }
    // Unknown for too long: a position in the epoch that the row names is believed until the log says otherwise.
    const trusted =
      isNamedByRun(position) ||
      (!judged && !pipeline.finished() && (position.epoch ?? FIRST_EPOCH) === fanOut.epoch());
    const again = trusted ? null : await readAgain(position);
    if (gone()) return attachment;
    if (deps.isStopped()) {
      viewer.close(1012, 'restarting');
      return attachment;
    }
    member = fanOut.join(viewer, position, deps.facts(), trusted, again);
    return attachment;
  };
}

/** "2.1" is later than "1.4", "1.4" than "1.2", "1.closed" than all of attempt 1; a random name has no order. */
function isLaterEpoch(epoch: string, than: string): boolean {
  const [[attempt, log], [thanAttempt, thanLog]] = [orderOf(epoch), orderOf(than)];
  return attempt === thanAttempt ? log > thanLog : attempt > thanAttempt;
}

function orderOf(epoch: string): readonly [number, number] {
  const [attempt, log = ''] = epoch.split('.');
  const number = /^\d+$/.test(log) ? Number(log) : Number.NaN;
  return [Number(attempt), log === 'closed' ? Number.POSITIVE_INFINITY : number];
}
