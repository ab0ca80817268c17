import {
  BreakerState,
  Bulkhead,
  BulkheadOverloadError,
  BulkheadQueueWaitError,
  Circuit,
  SlidingCountBreaker,
} from 'mollitia';

type CircuitState = 'closed' | 'half_open' | 'open';

/** A call that went through, or why it was not made. */
type Guarded<Value> = { kind: 'done'; value: Value } | { kind: 'open' } | { kind: 'overloaded' };

/** What a call says of the dependency's health; `undecided` says nothing, and neither continues nor ends a row of failures. */
export type Health = 'good' | 'bad' | 'undecided';

/**
 * `about`: the run that a failure may be the fault of. One that is broken over there fails each time it is asked for, so of
 * its failures, with no success of anything between them, the first one counts.
 */
type Call<Value> = () => Promise<{ value: Value; health: Health; about?: string | null }>;

export interface RuntimeCircuit {
  /** Makes the call unless the circuit is not closed or too many others wait. The call must always settle, and not throw. */
  run<Value>(call: Call<Value>): Promise<Guarded<Value>>;
  /** The dependency has answered something that is not held back here. */
  heard(): void;
  /** Waits so long (ms) before the next call, or until the circuit closes, where that is sooner. */
  pause(milliseconds: number, signal?: AbortSignal): Promise<void>;
  state(): CircuitState;
  /** Whole seconds (1 or more) until a call may go through; null while one may. */
  retryAfterSeconds(): number | null;
  /** Ends the timers. */
  stop(): void;
}

export interface RuntimeCircuitOptions {
  name: string;
  /** How long it stays open before the probe is made, in ms. Never below `longestCallMs`. */
  openMs: number;
  /** The longest time that a call can take, in ms, the probe included. */
  longestCallMs: number;
  /**
   * The one call of a half-open circuit; only `good` closes it. Of the dependency alone, not of a single run: a broken
   * one would keep the circuit open for all. Must not throw.
   */
  probe: () => Promise<Health>;
  /** Calls under way at once; as many as `waiting` wait for `maxWaitMs` at most. */
  concurrent: number;
  waiting: number;
  maxWaitMs: number;
  onState?: (state: CircuitState) => void;
}

const failuresInARow = 5;

/**
 * The breaker writes the answer of `getState` back over its own state one microtask later, which undoes an opening that
 * came between. What is no valid state is not written back: the state stays in memory, where it is.
 */
class MemoryBreaker extends SlidingCountBreaker {
  override async getState(): Promise<{ state: string }> {
    return { state: 'kept in memory' };
  }
}

const stateNames: Readonly<Record<BreakerState, CircuitState>> = {
  [BreakerState.CLOSED]: 'closed',
  [BreakerState.HALF_OPENED]: 'half_open',
  [BreakerState.OPENED]: 'open',
};

/**
 * One circuit per dependency, never per thread (circuits are never released): opens after exactly five failures in a row,
 * then makes one probe. Before it a bulkhead, so that a slow runtime holds a bounded number of calls.
 *
 * The breaker is told of calls when they are over, since only then it is known whether they count; what is told to an
 * open one it ignores, and a half-open one hears its probe. A call that began before the opening is over by then
 * (`openMs` ≥ the longest call), so that no failure of the outage before is counted when the circuit has closed.
 */
export function createRuntimeCircuit(options: RuntimeCircuitOptions): RuntimeCircuit {
  const { probe } = options;
  const openMs = Math.max(options.openMs, options.longestCallMs);
  const breaker = new MemoryBreaker({
    slidingWindowSize: failuresInARow,
    minimumNumberOfCalls: failuresInARow,
    // 100 would switch the breaker off; of five calls only five failures reach 99 %.
    failureRateThreshold: 99,
    slowCallDurationThreshold: Number.POSITIVE_INFINITY,
    openStateDelay: openMs,
    halfOpenStateMaxDelay: options.longestCallMs + 1_000,
    permittedNumberOfCallsInHalfOpenState: 1,
  });
  const bulkhead = new Bulkhead({
    concurrentSize: options.concurrent,
    queueSize: options.waiting,
    maxQueueWait: options.maxWaitMs,
  });
  const pausing = new Set<() => void>();
  const suspects = new Set<string>();
  let stopped = false;
  const bounded = new Circuit({
    name: options.name,
    func: <Value>(work: () => Promise<Value>) => work(),
    options: { modules: [bulkhead] },
  });
  const counted = new Circuit({
    name: `${options.name}.counted`,
    async func(tried: () => Promise<Health>) {
      const good = (await tried()) === 'good';
      // What fails after the stop must not open the circuit: that would begin a timer which nobody ends.
      if (!good && !stopped) throw new Error('counted as a failure');
    },
    options: { modules: [breaker] },
  });
  /** What was counted, and that an open or half-open breaker counts nothing, is told by its state alone. */
  const count = (tried: () => Promise<Health>): Promise<void> =>
    counted.execute<void>(tried).catch(() => undefined);

  function isNews(health: Health, about: string | null): boolean {
    if (health === 'good') suspects.clear();
    if (health !== 'bad' || about === null) return health !== 'undecided';
    const known = suspects.has(about);
    suspects.add(about);
    return !known;
  }

  breaker.on('state-changed', () => {
    const state = stateNames[breaker.state];
    options.onState?.(state);
    if (state === 'half_open') void count(probe);
    if (state !== 'closed') return;
    suspects.clear();
    for (const goOn of [...pausing]) goOn();
  });
  options.onState?.('closed');

  return {
    async run<Value>(call: Call<Value>): Promise<Guarded<Value>> {
      if (breaker.state !== BreakerState.CLOSED) return { kind: 'open' };
      try {
        return await bounded.execute<Guarded<Value>>(async (): Promise<Guarded<Value>> => {
          if (breaker.state !== BreakerState.CLOSED) return { kind: 'open' };
          const { value, health, about = null } = await call();
          if (isNews(health, about)) await count(async () => health);
          return { kind: 'done', value };
        });
      } catch (thrown) {
        if (thrown instanceof BulkheadOverloadError || thrown instanceof BulkheadQueueWaitError) {
          return { kind: 'overloaded' };
        }
        throw thrown;
      }
    },
    heard() {
      if (isNews('good', null)) void count(async () => 'good');
    },
    pause: (milliseconds, signal) =>
      new Promise((resolve) => {
        const goOn = () => {
          clearTimeout(timer);
          pausing.delete(goOn);
          signal?.removeEventListener('abort', goOn);
          resolve();
        };
        const timer = setTimeout(goOn, milliseconds).unref();
        pausing.add(goOn);
        signal?.addEventListener('abort', goOn, { once: true });
        if (signal?.aborted) goOn();
      }),
    state: () => stateNames[breaker.state],
    retryAfterSeconds() {
      if (breaker.state === BreakerState.CLOSED) return null;
      if (breaker.state === BreakerState.HALF_OPENED) return 1;
      return Math.max(1, Math.ceil((breaker.stateTimestamp + openMs - Date.now()) / 1000));
    },
    stop() {
      stopped = true;
      breaker.dispose();
    },
  };
}
