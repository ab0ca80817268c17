import { type EventFromLogic, initialTransition, type SnapshotFrom, transition } from 'xstate';
import { proposalMachine } from '../../src/actors/proposal-machine.js';
import type {
  Closed,
  InvokeAnswer,
  ProposalEvent,
  ProposalInput,
  ProposalState,
  Settled,
  Verdict,
} from '../../src/actors/proposal-types.js';
import { maxAttempts } from './world.js';

type Snapshot = SnapshotFrom<typeof proposalMachine>;

/** An invoked actor that a transition starts, by its name in the machine. */
export interface Started {
  src: string;
  verdict: Verdict | null;
}

interface Move {
  to: number;
  started: readonly Started[];
}

/** The real machine, driven through xstate's pure functions: each snapshot has a number, each transition is made once. */
export interface Lives {
  begin(input: Pick<ProposalInput, 'attempt' | 'role' | 'status' | 'cancelled'>): Move;
  hear(machine: number, event: ProposalEvent): Move;
  answer(machine: number, answer: { of: 'invoking'; output: InvokeAnswer }): Move;
  answer(machine: number, answer: { of: 'retrying'; output: Closed }): Move;
  answer(machine: number, answer: { of: 'finalizing'; output: Settled }): Move;
  answer(machine: number, answer: { of: 'live.cancelling'; output: undefined }): Move;
  state(machine: number): ProposalState;
  attempt(machine: number): number;
  cancelled(machine: number): boolean;
  readonly size: number;
}

type Action = ReturnType<typeof transition<typeof proposalMachine>>[1][number];

/** What the actions of a transition start; the ids of invoked actors are those of xstate. */
function startedBy(actions: readonly Action[]): Started[] {
  return actions.flatMap((action) => {
    if (action.type !== 'xstate.spawnChild') return [];
    const { src, input } = action.params as unknown as { src: string; input: { verdict?: Verdict } };
    return [{ src, verdict: input.verdict ?? null }];
  });
}

export function createLives(): Lives {
  const snapshots: Snapshot[] = [];
  const numbers = new Map<string, number>();
  const moves = new Map<string, Move>();

  function numberOf(snapshot: Snapshot): number {
    const key = JSON.stringify([snapshot.value, snapshot.context]);
    const known = numbers.get(key);
    if (known !== undefined) return known;
    numbers.set(key, snapshots.length);
    return snapshots.push(snapshot) - 1;
  }

  function snapshotOf(machine: number): Snapshot {
    const snapshot = snapshots[machine];
    if (snapshot === undefined) throw new Error(`there is no machine ${machine}`);
    return snapshot;
  }

  function once(key: string, make: () => [Snapshot, readonly Action[]]): Move {
    const known = moves.get(key);
    if (known !== undefined) return known;
    const [snapshot, actions] = make();
    if (snapshot.status !== 'active') throw new Error(`the machine broke: ${key}`);
    const move = { to: numberOf(snapshot), started: startedBy(actions) };
    moves.set(key, move);
    return move;
  }

  const hear = (machine: number, event: EventFromLogic<typeof proposalMachine>): Move =>
    once(`${machine} ${JSON.stringify(event)}`, () =>
      transition(proposalMachine, snapshotOf(machine), event),
    );

  return {
    begin: (input) =>
      once(JSON.stringify(input), () =>
        initialTransition(proposalMachine, {
          ...input,
          proposalId: 'proposal',
          threadId: 'thread',
          maxAttempts,
          jobId: `job-${input.attempt}`,
          runtimeThreadId: null,
          awaited: false,
          poisoned: false,
        }),
      ),
    hear,
    answer(machine, { of, output }) {
      const actorId = `0.proposal.${of}`;
      // What xstate sends itself when an invoked actor is done is no event of ours.
      const event = { type: `xstate.done.actor.${actorId}`, actorId, output };
      return hear(machine, event as unknown as ProposalEvent);
    },
    state(machine) {
      const { value } = snapshotOf(machine);
      return (typeof value === 'string' ? value : value.live) as ProposalState;
    },
    attempt: (machine) => snapshotOf(machine).context.attempt,
    cancelled: (machine) => snapshotOf(machine).context.cancelled,
    get size() {
      return snapshots.length;
    },
  };
}
