import { RunnerError } from '../agent/runner-error.js';

/** Which model the agents use. */
export type ModelSetting =
  | {
      kind: 'scripted';
      /** Pause before each streamed chunk, in milliseconds; 0 streams as fast as it is taken. */
      chunkDelayMs: number;
    }
  | {
      kind: 'provider';
      /** A provider that `initChatModel` knows, e.g. `openai`. Base URL and key are its own variables. */
      provider: string;
      model: string;
      /** Retries of one model call inside the provider's client. */
      maxRetries: number;
    };

/** At 15 ms a chunk a person can follow the script, and a run takes a few seconds. */
const readablePace = 15;
const defaultRetries = 2;

/**
 * Reads `scripted` or `provider:name`.
 *
 * @throws RunnerError `invalid_model` for anything else; whether the provider exists is {@link checkModel}'s matter
 */
export function modelSettingOf(
  text: string,
  {
    chunkDelayMs = readablePace,
    maxRetries = defaultRetries,
  }: { chunkDelayMs?: number; maxRetries?: number } = {},
): ModelSetting {
  const plain = text.trim();
  if (plain === '' || plain === 'scripted') return { kind: 'scripted', chunkDelayMs };
  const colon = plain.indexOf(':');
  const provider = plain.slice(0, colon);
  const model = plain.slice(colon + 1);
  if (colon < 1 || model === '') {
    throw new RunnerError('invalid_model', `The model "${plain}" is neither "scripted" nor "provider:name".`);
  }
  return { kind: 'provider', provider, model, maxRetries };
}
