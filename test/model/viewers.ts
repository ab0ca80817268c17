import type { Lives } from './lives.js';
import { Breach, type Replica, type Side, type Viewer, type World } from './world.js';

/** Frame `number` of `epoch` leaves for a viewer. */
function deliver(viewer: Viewer, epoch: number, number: number): void {
  if (viewer.ended) throw new Breach('a viewer got a frame after its end');
  if (viewer.epoch !== epoch) throw new Breach(`a viewer in ${viewer.epoch} got a frame of ${epoch}`);
  if (number !== viewer.position + 1) throw new Breach(`a viewer at ${viewer.position} got ${number}`);
  viewer.position = number;
}

const seats = (world: World, side: Side) => world.viewers.filter((viewer) => viewer.at === side);

/** Frames up to `last` of the run's log `epoch` are released. */
export function release(world: World, side: Side, epoch: number, last: number): void {
  const replica = world.replicas[side];
  for (let number = replica.released + 1; number <= last; number++) {
    for (const viewer of seats(world, side)) deliver(viewer, epoch, number);
  }
  replica.released = Math.max(replica.released, last);
}

/** `on_reset` or `on_retry`: another epoch, whose frames follow from 1. */
export function tellBegun(world: World, side: Side): void {
  for (const viewer of seats(world, side)) {
    Object.assign(viewer, { epoch: world.replicas[side].epoch, position: 0 });
  }
}

function end(world: World, viewer: Viewer, epoch: number, number: number): void {
  const { row } = world;
  if (row.status === 'processing') throw new Breach('a viewer got its end before the commit');
  if (row.last?.epoch !== epoch || row.last.number !== number) throw new Breach('two ends differ');
  deliver(viewer, epoch, number);
  viewer.ended = true;
  viewer.at = null;
}

/** A reader that judges: the end of the run as it hears it. */
export function tellRuntimesEnd(world: World, side: Side): void {
  const { epoch, released } = world.replicas[side];
  for (const viewer of seats(world, side)) end(world, viewer, epoch, released + 1);
}

/** `finish` of the fan-out: everybody gets what it lacks, is told of the rest, then the stored end. */
export function tellEnd(world: World, side: Side): void {
  const replica = world.replicas[side];
  const { last } = world.row;
  if (last === null) throw new Breach('a finished row has no last frames');
  // Something else was sent here under the number of the end: all of it is void.
  const contradicts = replica.epoch === last.epoch && replica.released >= last.number;
  replica.finished = true;
  for (const viewer of seats(world, side)) {
    if (contradicts || viewer.epoch !== last.epoch) Object.assign(viewer, { epoch: last.epoch, position: 0 });
    finishViewer(world, viewer);
  }
  replica.epoch = last.epoch;
}

/** `on_skipped` up to the last frames, then the end. */
function finishViewer(world: World, viewer: Viewer): void {
  const { last } = world.row;
  if (last === null) return;
  viewer.position = Math.max(viewer.position, last.number - 1);
  end(world, viewer, last.epoch, last.number);
}

export const hasFinished = (lives: Lives, { machine }: Replica): boolean =>
  ['completed', 'failed', 'resolved'].includes(lives.state(machine));

/** Whether a viewer can be let in: its position is judged only when the log is known, or the row has ended. */
export const canJoin = (replica: Replica, viewer: Viewer): boolean =>
  replica.finished || replica.log > 0 || viewer.epoch === 0;

/** `join` of the fan-out. */
export function join(world: World, viewer: Viewer, side: Side): void {
  const replica = world.replicas[side];
  viewer.at = side;
  if (replica.finished) {
    const last = world.row.last;
    const foreign = viewer.epoch !== last?.epoch || viewer.position >= (last?.number ?? 0);
    if (foreign) Object.assign(viewer, { epoch: replica.epoch, position: 0 });
    return finishViewer(world, viewer);
  }
  const knows = viewer.epoch === replica.epoch && viewer.position <= replica.released;
  if (!knows) Object.assign(viewer, { epoch: replica.epoch, position: 0 });
  for (let number = viewer.position + 1; number <= replica.released; number++) {
    deliver(viewer, replica.epoch, number);
  }
}
