import type { Attachment, StartOutcome, ThreadDirectory } from '../../src/actors/thread-directory.js';
import type { ThreadRow } from '../../src/db/row-schemas.js';
import type { Viewer, ViewerPosition } from '../../src/streams/viewer.js';

/** One call of `attach`, and what the test can do with it. */
interface FakeSeat {
  readonly threadId: string;
  readonly viewer: Viewer;
  readonly position: ViewerPosition;
  /** What the viewer handed to the run. */
  readonly sent: string[];
  detached: boolean;
  drains: number;
}

/** Stands in for the actors: every member can be changed while a test runs. */
export interface FakeDirectory extends ThreadDirectory {
  retryAfterSeconds: number | null;
  /** What `startRun` answers; a function may wait or throw. */
  start: StartOutcome | ((row: ThreadRow) => Promise<StartOutcome>);
  /** Whether a run is open here, for `sendToRun`. */
  streaming: boolean;
  /** Runs before the seat is handed out. */
  onAttach: (seat: FakeSeat) => Promise<void>;
  readonly started: ThreadRow[];
  readonly noticed: string[];
  readonly seats: FakeSeat[];
}

export function createFakeDirectory(): FakeDirectory {
  const fake: FakeDirectory = {
    retryAfterSeconds: null,
    start: 'started',
    streaming: true,
    onAttach: async (seat) => {
      seat.viewer.send(JSON.stringify({ event_type: 'on_subscribed', data: { thread_id: seat.threadId } }));
    },
    started: [],
    noticed: [],
    seats: [],
    runtimeRetryAfterSeconds: () => fake.retryAfterSeconds,
    startRun: async (row) => {
      fake.started.push(row);
      return typeof fake.start === 'function' ? fake.start(row) : fake.start;
    },
    attach: async (threadId, viewer, position): Promise<Attachment> => {
      const seat: FakeSeat = { threadId, viewer, position, sent: [], detached: false, drains: 0 };
      fake.seats.push(seat);
      await fake.onAttach(seat);
      return {
        detach: () => {
          seat.detached = true;
        },
        drained: () => {
          seat.drains += 1;
        },
        sendToRun: (message) => {
          if (fake.streaming) seat.sent.push(message.toString());
          return fake.streaming;
        },
      };
    },
    notice: (threadId) => {
      fake.noticed.push(threadId);
    },
    counts: () => ({ streaming: fake.seats.length }),
  };
  return fake;
}
