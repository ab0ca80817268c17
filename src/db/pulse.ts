/** Whether PostgreSQL answers at all, judged from the statements that are under way anyhow. */
export interface Pulse {
  /** Something was sent that waits for an answer; the result is called once, with whether one came. */
  sent(): (answered: boolean) => void;
  /** Milliseconds for which something has waited and nothing was answered; 0 where nothing waits. */
  silentMs(): number;
  /** Nothing is under way: whoever wants to know whether PostgreSQL is back must ask. */
  isIdle(): boolean;
  stop(): void;
}

const STEP_MS = 250;

/**
 * A refused or broken connection is an answer: whoever asks is told at once. Silence is what a frozen server or a
 * dead network gives. It is counted in steps of 250 ms, so that a process that stood still itself, with the answers
 * waiting in its sockets, does not take its own sleep for PostgreSQL's.
 */
export function createPulse(): Pulse {
  let underWay = 0;
  let unanswered = false;
  let silent = 0;
  const timer = setInterval(() => {
    if (unanswered) silent += STEP_MS;
  }, STEP_MS);
  timer.unref();
  return {
    sent() {
      underWay++;
      unanswered = true;
      return (answered) => {
        underWay--;
        if (!answered) return;
        silent = 0;
        unanswered = underWay > 0;
      };
    },
    silentMs: () => silent,
    isIdle: () => underWay === 0,
    stop: () => clearInterval(timer),
  };
}
