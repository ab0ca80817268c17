import type { Publish, Viewer } from '../../src/streams/viewer.js';

interface FakeViewerOptions {
  /** Bytes above which a message is dropped, as by uWS. */
  maxBackpressure?: number;
}

/** A viewer whose socket takes nothing until `take` is called: what is sent waits, as behind a slow network. */
export interface FakeViewer extends Viewer {
  /** Everything that was sent or published to it, parsed, in order. */
  readonly received: readonly SeenFrame[];
  readonly closed: { code: number; reason: string } | null;
  /** Messages that were dropped for lack of room. */
  readonly dropped: number;
  /** The network takes up to so many bytes; default all. */
  take(bytes?: number): void;
  /** From now on everything is taken at once. */
  takesAll(yes: boolean): void;
}

interface SeenFrame {
  /** Of a frame that stands for several: the first of them. */
  first_seq?: number;
  seq?: number;
  event_type: string;
  data: Record<string, unknown>;
}

/** A topic tree in memory: who is subscribed when something is published gets it. */
export interface FakeTopics {
  publish: Publish;
  join(options?: FakeViewerOptions): FakeViewer;
}

export function createFakeTopics(): FakeTopics {
  const subscribers = new Map<string, Set<(message: Buffer | string) => void>>();
  let made = 0;
  return {
    publish(topic, message) {
      for (const deliver of [...(subscribers.get(topic) ?? [])]) deliver(message);
    },
    join({ maxBackpressure = Number.POSITIVE_INFINITY } = {}) {
      const received: SeenFrame[] = [];
      const waiting: number[] = [];
      let buffered = 0;
      let dropped = 0;
      let open = true;
      let closed: { code: number; reason: string } | null = null;
      const send = (message: Buffer | string): number => {
        if (closed !== null) return 2;
        const length = Buffer.byteLength(message);
        if (buffered > maxBackpressure) {
          dropped++;
          return 2;
        }
        // What is kept may be used again by the sender.
        received.push(JSON.parse(message.toString()) as SeenFrame);
        if (open) return 1;
        waiting.push(length);
        buffered += length;
        return 0;
      };
      const topicOf = (topic: string) => {
        const found = subscribers.get(topic) ?? new Set();
        subscribers.set(topic, found);
        return found;
      };
      const viewer: FakeViewer = {
        id: `viewer-${++made}`,
        userId: 'user',
        access: 'owner',
        accessVersion: 1,
        traceId: 'trace',
        get received() {
          return received;
        },
        get closed() {
          return closed;
        },
        get dropped() {
          return dropped;
        },
        take(bytes = Number.POSITIVE_INFINITY) {
          buffered = Math.max(0, buffered - bytes);
        },
        takesAll(yes) {
          open = yes;
          if (yes) buffered = 0;
        },
        send,
        subscribe: (topic) => void topicOf(topic).add(send),
        unsubscribe: (topic) => void topicOf(topic).delete(send),
        isClosed: () => closed !== null,
        bufferedBytes: () => buffered,
        cork: (sends) => sends(),
        close(code, reason) {
          closed ??= { code, reason };
          for (const each of subscribers.values()) each.delete(send);
        },
      };
      return viewer;
    },
  };
}
