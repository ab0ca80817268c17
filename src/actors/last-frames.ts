import { createHash } from 'node:crypto';
import type { ProposalError, ProposalStatus, Warning, WireFiles } from '@ide-orchestrator/protocol';
import { parseFrame, renumberFrame } from '../streams/decode-frame.js';
import type { LastFrames } from '../streams/released-log.js';
import type { NumberedFrame } from '../streams/replay-window.js';
import type { RunEnding } from '../streams/stream-signals.js';

export interface EndingFacts {
  proposalId: string;
  attempt: number;
  status: ProposalStatus;
  files: WireFiles;
  warnings: Warning[];
  /** The newest state update that carries files, as it was sent. */
  state: NumberedFrame | null;
  /** Last number that viewers have, and the epoch that it is in. */
  released: number;
  epoch: string;
}

/** sha256 of a file's text; null for a file that the run deleted. */
function hashesOf(files: WireFiles): Record<string, string | null> {
  const hashes = Object.entries(files).map(([path, file]) => {
    if (file === null) return [path, null] as const;
    return [path, createHash('sha256').update(file.content.join('\n'), 'utf8').digest('hex')] as const;
  });
  return Object.fromEntries(hashes);
}

function endFrame(facts: EndingFacts, number: number): NumberedFrame {
  const data = {
    proposal_id: facts.proposalId,
    status: facts.status,
    files: hashesOf(facts.files),
    warnings: facts.warnings,
  };
  return { number, bytes: Buffer.from(JSON.stringify({ seq: number, event_type: 'end', data })) };
}

function errorFrame(error: ProposalError, number: number): NumberedFrame {
  return { number, bytes: Buffer.from(JSON.stringify({ seq: number, event_type: 'error', data: error })) };
}

const stateOf = (facts: EndingFacts) => (facts.state !== null && facts.state.number > 0 ? [facts.state] : []);

/** The last frames of a run that completed: its epoch goes on, our `end` takes the number of the runtime's. */
export function completedFrames(facts: EndingFacts, ending: RunEnding | null): LastFrames {
  const number = Math.max(ending?.endNumber ?? 0, facts.released + 1);
  return { epoch: facts.epoch, frames: [...stateOf(facts), endFrame(facts, number)] };
}

/**
 * The last frames of a run that the runtime itself ended: its `error` is relayed; if it sent none, ours takes the
 * number of its `end`, and our `end` the next.
 */
export function failedFrames(facts: EndingFacts, ending: RunEnding | null, error: ProposalError): LastFrames {
  const next = facts.released + 1;
  if (ending?.errorBytes != null) {
    const number = ending.errorNumber > 0 ? ending.errorNumber : next;
    const value = ending.errorNumber > 0 ? null : parseFrame(ending.errorBytes);
    const bytes = value === null ? ending.errorBytes : renumberFrame(ending.errorBytes, value, number);
    const end = endFrame(facts, Math.max(ending.endNumber, number + 1));
    return { epoch: facts.epoch, frames: [...stateOf(facts), { number, bytes }, end] };
  }
  const number = Math.max(ending?.endNumber ?? 0, next);
  const frames = [...stateOf(facts), errorFrame(error, number), endFrame(facts, number + 1)];
  return { epoch: facts.epoch, frames };
}

/** The last frames of a run that the runtime did not end: an epoch of its own, the newest state as 1. */
export function closedFrames(facts: EndingFacts, error: ProposalError): LastFrames {
  const frames: NumberedFrame[] = [];
  const value = facts.state === null ? null : parseFrame(facts.state.bytes);
  if (facts.state !== null && value !== null) {
    frames.push({ number: 1, bytes: renumberFrame(facts.state.bytes, value, 1) });
  }
  frames.push(errorFrame(error, frames.length + 1));
  frames.push(endFrame(facts, frames.length + 1));
  return { epoch: `${facts.attempt}.closed`, frames };
}
