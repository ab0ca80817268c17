/** Where a reader stands in a runtime's log: it has everything up to and including `after` of `epoch`. */
export interface StreamPosition {
  after: number;
  /** The runtime's own epoch; null where it told none. */
  epoch: number | null;
}
