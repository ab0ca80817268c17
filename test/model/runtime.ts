import { Breach, bit, framesOfRun, type Job, jobOf, type World } from './world.js';

const isOver = ({ state }: Job) => state === 'completed' || state === 'failed';

/** Whether a reader of the log has more to come than `frames`. */
export const hasMore = (job: Job, frames: number): boolean => job.frames > frames || isOver(job);

/** Insert `ON CONFLICT DO NOTHING`: a known job is left as it is, a barred one is gone for ever. */
export function invoke(world: World, attempt: number): 'started' | 'gone' {
  const job = jobOf(world, attempt);
  if (job.state === 'gone') return 'gone';
  if (job.state === 'unknown') {
    if ((world.row.cleaned & bit(attempt)) !== 0) throw new Breach('a job began after its clean-up');
    job.state = 'running';
  }
  if (world.jobs.filter(({ state }) => state === 'running').length > 1)
    throw new Breach('two runs of a thread are unfinished');
  return 'started';
}

/** An attempt before this one may still run, or begin: it is not cleaned up, and `state` does not call it ended. */
export function isEarlierOpen({ row, jobs }: World, attempt: number): boolean {
  return jobs.some((job, at) => at + 1 < attempt && (row.cleaned & bit(at + 1)) === 0 && !isOver(job));
}

export function speak(job: Job): void {
  job.frames++;
}
export const canSpeak = ({ state, frames }: Job) => state === 'running' && frames < framesOfRun;
export const canEnd = ({ state, frames }: Job) => state === 'running' && frames === framesOfRun;

/** The process is killed and back: unfinished runs go on, finished ones are told, in the next epoch. */
export function killRuntime({ jobs }: World): void {
  for (const job of jobs) {
    if (job.state === 'unknown' || job.state === 'gone') continue;
    job.log++;
    // A log that is begun anew starts with the whole state.
    job.frames = 1;
  }
}

/** One row of the outbox is delivered and confirmed. */
export function cleanUp(world: World, attempt: number, bars: boolean): void {
  const job = jobOf(world, attempt);
  if (bars || job.state !== 'unknown') Object.assign(job, { state: 'gone', log: 1, frames: 0 });
  world.row.ordered &= ~bit(attempt);
  world.row.cleaned |= bit(attempt);
}
