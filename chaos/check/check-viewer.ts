import type { Entry, ViewerLog } from './viewer-log.js';

/** "2.1" → attempt 2, log 1; the log of "2.closed" comes after all others. */
function orderOf(epoch: string): readonly [number, number] {
  const [attempt = '', log = ''] = epoch.split('.');
  return [Number(attempt), log === 'closed' ? Number.POSITIVE_INFINITY : Number(log)];
}

function isEarlier(epoch: string, than: string): boolean {
  const [[attempt, log], [thanAttempt, thanLog]] = [orderOf(epoch), orderOf(than)];
  return attempt === thanAttempt ? log < thanLog : attempt < thanAttempt;
}

/**
 * What is wrong with one viewer's numbers: within an epoch each has to come once, as a frame, inside of a merged frame
 * or inside of an `on_skipped`, and nothing may come after the end.
 */
export function faultsOfViewer(log: ViewerLog): string[] {
  const faults: string[] = [];
  let epoch: string | null = null;
  /** The number that has to come next. */
  let next = 1;
  let ended = false;
  /** The latest epoch so far. A replica that has not heard of it yet may name an earlier one, but not send from it. */
  let latest: string | null = null;
  /** That it did is told once for each time. */
  let toldOver = false;

  function enter(into: string): void {
    epoch = into;
    next = 1;
    toldOver = false;
    if (latest === null || isEarlier(latest, into)) latest = into;
  }

  function account(first: number, last: number, what: string): void {
    if (epoch === null) faults.push(`${what} ${first} before on_subscribed`);
    else if (first > next) faults.push(`a hole in epoch ${epoch}: ${next} to ${first - 1} never came`);
    else if (first < next) faults.push(`${what} ${first} came again in epoch ${epoch}, after ${next - 1}`);
    if (epoch !== null && latest !== null && isEarlier(epoch, latest) && !toldOver) {
      toldOver = true;
      faults.push(`${what} ${first} of epoch ${epoch} came after epoch ${latest}`);
    }
    if (last < first) faults.push(`${what} ends at ${last}, before its beginning ${first}`);
    next = Math.max(next, last + 1);
  }

  function take(entry: Entry): void {
    switch (entry.kind) {
      case 'subscribed': {
        const { asked } = entry;
        if (asked !== null && entry.recovery !== 'reset') {
          if (entry.epoch !== asked.epoch)
            faults.push(`${entry.recovery} in epoch ${entry.epoch} for a position in ${asked.epoch}`);
          enter(entry.epoch);
          next = asked.seq + 1;
        } else enter(entry.epoch);
        break;
      }
      case 'begin':
        enter(entry.epoch);
        break;
      case 'skipped':
        account(entry.first, entry.last, 'on_skipped');
        break;
      case 'frame':
        if (ended) faults.push(`a frame (${entry.type}, ${entry.seq}) after the end`);
        account(entry.first, entry.seq, entry.type);
        if (entry.type === 'end') ended = true;
    }
  }

  for (const entry of log.entries) take(entry);
  if (log.ends.length > 1) faults.push(`${log.ends.length} ends`);
  if (log.stayed && log.ends.length === 0) faults.push('stayed and never saw an end');
  return faults.map((fault) => `viewer ${log.viewer}: ${fault}`);
}

interface Place {
  print: string;
  text: string | null;
  viewer: string;
}

/** What is wrong between the viewers of one thread: the same number of the same epoch is the same bytes for all. */
export function faultsBetweenViewers(logs: readonly ViewerLog[]): string[] {
  const faults: string[] = [];
  const places = new Map<string, Place>();
  const merged: { epoch: string; viewer: string; entry: Extract<Entry, { kind: 'frame' }> }[] = [];
  for (const { viewer, entries } of logs) {
    let epoch = '';
    for (const entry of entries) {
      if (entry.kind === 'subscribed' || entry.kind === 'begin') epoch = entry.epoch;
      if (entry.kind !== 'frame') continue;
      if (entry.first !== entry.seq) {
        merged.push({ epoch, viewer, entry });
        continue;
      }
      const place = `${epoch} ${entry.seq}`;
      const known = places.get(place);
      if (known === undefined) places.set(place, { print: entry.print, text: entry.text, viewer });
      else if (known.print !== entry.print)
        faults.push(
          `${entry.type} ${entry.seq} of epoch ${epoch} differs between viewers ${known.viewer} and ${viewer}`,
        );
    }
  }
  for (const { epoch, viewer, entry } of merged) {
    let whole = '';
    let complete = true;
    for (let seq = entry.first; seq <= entry.seq && complete; seq++) {
      const text = places.get(`${epoch} ${seq}`)?.text ?? null;
      if (text === null) complete = false;
      else whole += text;
    }
    if (complete && whole !== entry.text)
      faults.push(
        `viewer ${viewer}: the merged frame ${entry.first} to ${entry.seq} of epoch ${epoch} is not its parts`,
      );
  }
  return faults;
}
