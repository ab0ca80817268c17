import type { ProposalError, RuntimeState, Warning, WireFiles } from '@ide-orchestrator/protocol';
import { acceptFiles } from '../streams/newest-files.js';
import type { StateResult } from '../streams/runtime-client.js';
import type { RunEnding } from '../streams/stream-signals.js';
import type { ThreadPipeline } from '../streams/thread-pipeline.js';
import { errorOfState } from './verdicts.js';

export interface RunFilesDeps {
  pipeline: Pick<ThreadPipeline, 'newestFiles' | 'damaged'>;
  /** How the runtime ended the run, where it did. */
  ending: () => RunEnding | null;
  askState: () => Promise<StateResult>;
  sleep: (milliseconds: number) => Promise<void>;
  delayMs: (failures: number) => number;
  /** No more waiting for the runtime: the proposal's time is over, or the actor stops. */
  pastDeadline: () => boolean;
  allowed: { fileBytes: number; files: number };
}

/** What a run that ended well has made. */
export interface RunFiles {
  files: WireFiles;
  warnings: Warning[];
  /** Why there is nothing to complete with. */
  fault: ProposalError | null;
}

/** How long a runtime that has said `end` may go on saying `running`. */
const STATE_TRIES = 20;

/** The files of the last state update before `end`; from the runtime's state where the stream cannot be trusted. */
export async function findRunFiles(deps: RunFilesDeps): Promise<RunFiles> {
  const { pipeline } = deps;
  const ending = deps.ending();
  const streamed = ending?.state == null ? pipeline.newestFiles.files() : null;
  const broken = ending?.state == null && streamed === null && pipeline.newestFiles.frame() !== null;
  const damaged = pipeline.damaged() || broken;
  const warnings: Warning[] = damaged
    ? [{ code: 'invalid_frame', message: 'Frames of the run could not be read or were missing.' }]
    : [];
  let given = streamed;
  if (damaged || given === null) {
    const asked = ending?.state ?? (await finalState(deps));
    if (asked === 'away') {
      const message = 'The runtime could not be reached in time.';
      return { files: {}, warnings, fault: { code: 'runtime_unavailable', message, retryable: true } };
    }
    if (asked?.status === 'failed') return { files: {}, warnings, fault: errorOfState(asked) };
    const told = asked?.generated_files ?? null;
    if (told === null && damaged) {
      const message = 'The files of the run could not be read.';
      return { files: {}, warnings, fault: { code: 'invalid_frame', message, retryable: false } };
    }
    given = told;
  }
  const accepted = acceptFiles(given ?? {}, deps.allowed);
  warnings.push(...accepted.warnings);
  if (Object.keys(accepted.files).length > 0) return { files: accepted.files, warnings, fault: null };
  const message = 'The run ended without any files.';
  return { files: {}, warnings, fault: { code: 'completed_without_files', message, retryable: false } };
}

/** The runtime's word on a run that has ended; null where it does not say, `away` where it was not reached in time. */
async function finalState(deps: RunFilesDeps): Promise<RuntimeState | null | 'away'> {
  let away = false;
  for (let tries = 0, failures = 0; tries < STATE_TRIES && !deps.pastDeadline(); ) {
    const asked = await deps.askState();
    if (asked.kind === 'not_found') return null;
    away = asked.kind === 'away';
    if (asked.kind === 'state') {
      if (asked.state.status !== 'running') return asked.state;
      tries++;
    }
    await deps.sleep(asked.kind === 'away' ? deps.delayMs(failures++) : 250);
  }
  return away ? 'away' : null;
}
