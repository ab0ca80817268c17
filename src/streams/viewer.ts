/** One browser (or other reader) on one thread, as the streams see it. `http/viewer-socket.ts` makes it from a uWS socket. */
export interface Viewer {
  readonly id: string;
  readonly userId: string;
  readonly access: 'owner' | 'viewer';
  /** `proposals.access_version` of the query that let this viewer in. */
  readonly accessVersion: number;
  /** Trace id that `on_subscribed` names. */
  readonly traceId: string;
  /** Sends one text message: 1 sent, 0 queued, 2 dropped (uWS), or 2 where the socket is closed. */
  send(message: Buffer | string): number;
  subscribe(topic: string): void;
  unsubscribe(topic: string): void;
  /** The socket is closed, or is being closed: nothing reaches it any more. */
  isClosed(): boolean;
  /** Bytes that wait in user space for this viewer. */
  bufferedBytes(): number;
  /** Runs several sends as one write. */
  cork(sends: () => void): void;
  /** Closes the socket once; later calls do nothing. */
  close(code: number, reason: string): void;
}

/** Where a viewer stood when it left; both absent = from the start of the present epoch. */
export interface ViewerPosition {
  after?: number;
  epoch?: string;
}

/** `uWS.TemplatedApp.publish` with text messages. */
export type Publish = (topic: string, message: Buffer | string) => void;
