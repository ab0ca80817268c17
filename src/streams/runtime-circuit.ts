import {
  BreakerError,
  BreakerMaxAllowedRequestError,
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

/** What a call says of the dependency's health. `undecided` (the caller gave up) counts only where it was the probe. */
export type Health = 'good' | 'bad' | 'undecided';

type Call<Value> = () => Promise<{ value: Value; health: Health }>;

export interface RuntimeCircuit {
  /** Makes the call unless the circuit is open or too many others wait. The call must always settle, and not throw. */
  run<Value>(call: Call<Value>): Promise<Guarded<Value>>;
  /** As `run`, without a place in the bulkhead: for what is watched, not waited for. */
  watch<Value>(call: Call<Value>): Promise<Guarded<Value>>;
  state(): CircuitState;
  /** Whole seconds (1 or more) until a call may go through; null while one may. */
  retryAfterSeconds(): number | null;
  /** Ends the timers. */
  stop(): void;
}

export interface RuntimeCircuitOptions {
  name: string;
  /** How long it stays open before one probe is let through, in ms. Not below the longest deadline of a call, see below. */
  openMs: number;
  /** The longest time that a probe can take, in ms. */
  longestCallMs: number;
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

/** Carries a result past the breaker, which counts what is thrown. */
class BadHealth<Value> extends Error {
  readonly value: Value;
  constructor(value: Value) {
    super('counted as a failure');
    this.value = value;
  }
}

const stateNames: Readonly<Record<BreakerState, CircuitState>> = {
  [BreakerState.CLOSED]: 'closed',
  [BreakerState.HALF_OPENED]: 'half_open',
  [BreakerState.OPENED]: 'open',
};

/**
 * One circuit per dependency, never per thread (circuits are never released): opens after exactly five failures in a row,
 * then lets one probe through. Behind it a bulkhead, so that a slow runtime holds a bounded number of calls.
 *
 * Two times keep the breaker sound: a call that began before the opening must have settled before the first probe
 * (`openMs` ≥ the longest call), and a probe must have settled before the half-open state gives up on it, otherwise late
 * results are counted in a state that they know nothing of.
 */
export function createRuntimeCircuit(options: RuntimeCircuitOptions): RuntimeCircuit {
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
  let probes = 0;
  let stopped = false;
  const func = async <Value>(call: Call<Value>): Promise<Value> => {
    const probing = breaker.state === BreakerState.HALF_OPENED;
    if (probing) probes++;
    try {
      const { value, health } = await call();
      // What fails after the stop must not open the circuit: that would begin a timer which nobody ends.
      if (!stopped && (health === 'bad' || (health === 'undecided' && probing))) throw new BadHealth(value);
      return value;
    } finally {
      if (probing) probes--;
    }
  };
  const waited = new Circuit({ name: options.name, func, options: { modules: [bulkhead, breaker] } });
  const watched = new Circuit({ name: `${options.name}.watched`, func, options: { modules: [breaker] } });
  const through = async <Value>(circuit: Circuit, call: Call<Value>): Promise<Guarded<Value>> => {
    try {
      return { kind: 'done', value: await circuit.execute<Value>(call) };
    } catch (thrown) {
      if (thrown instanceof BadHealth) return { kind: 'done', value: thrown.value as Value };
      if (thrown instanceof BreakerError || thrown instanceof BreakerMaxAllowedRequestError) {
        return { kind: 'open' };
      }
      if (thrown instanceof BulkheadOverloadError || thrown instanceof BulkheadQueueWaitError) {
        return { kind: 'overloaded' };
      }
      throw thrown;
    }
  };
  breaker.on('state-changed', () => options.onState?.(stateNames[breaker.state]));
  options.onState?.('closed');

  return {
    run: (call) => through(waited, call),
    watch: (call) => through(watched, call),
    state: () => stateNames[breaker.state],
    retryAfterSeconds() {
      if (breaker.state === BreakerState.CLOSED) return null;
      if (breaker.state === BreakerState.HALF_OPENED) return probes > 0 ? 1 : null;
      return Math.max(1, Math.ceil((breaker.stateTimestamp + openMs - Date.now()) / 1000));
    },
    stop() {
      stopped = true;
      breaker.dispose();
    },
  };
}
