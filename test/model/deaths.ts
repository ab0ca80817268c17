import { createDeathWatch } from '../../src/actors/death-watch.js';

/** What the real watch says of a replica that it sees in answered polls through 5 s. */
function watched(beats: boolean): boolean {
  const watch = createDeathWatch('self');
  let dead = 0;
  for (let now = 0; now <= 5_000; now += 500) {
    dead = watch.seen([{ id: 'other', beat: beats ? now : 7, runtimeReachable: true }], now).length;
  }
  return dead > 0;
}

const verdicts = { beating: watched(true), still: watched(false) };

/** Whether a replica is found dead, sooner or later. */
export const isFoundDead = ({ beats }: { beats: boolean }): boolean =>
  beats ? verdicts.beating : verdicts.still;
