/** Whether what is judged by the database's silence has to wait (`guarantees.md` 13). */
export interface OutageRest {
  /** The database did not answer, or much too late. */
  failed(): void;
  /** It answered, at `now` (monotonic ms). */
  answered(now: number): void;
  resting(now: number): boolean;
}

/** An outage makes every beat and every run stand still: whoever lives needs a while to show it. */
const REST_MS = 10_000;

/** Rests from an outage until 10 s after the database came back. A start is no outage. */
export function createOutageRest(): OutageRest {
  let away = false;
  let until = Number.NEGATIVE_INFINITY;
  return {
    failed() {
      away = true;
    },
    answered(now) {
      if (away) until = now + REST_MS;
      away = false;
    },
    resting: (now) => away || now < until,
  };
}
