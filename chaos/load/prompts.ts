import { sampleWorkflow } from '../../scripts/refine/sample-specification.js';

export interface Wish {
  prompt: string;
  /** How often it is asked for, beside the others. */
  weight: number;
  files: Readonly<Record<string, string>>;
  /** Code of the failure that the prompt asks the scripted model for. */
  failsWith: string | null;
  attempts: number;
}

const { files } = sampleWorkflow;
/** States of a megabyte each, more than the system's own buffers take, so that a viewer that does not read has something to be slow with. */
const bigFiles = {
  ...files,
  '/notes.md': `${Array.from({ length: 15_000 }, (_, line) => `Line ${line}: the quick brown fox jumps over the lazy dog, and again.`).join('\n')}\n`,
};
const ordinary = { weight: 4, files, failsWith: null, attempts: 1 };

/** Long enough to be hit by several faults: the pause is that before each chunk of the scripted model. */
export const wishes: readonly Wish[] = [
  { ...ordinary, prompt: 'Add web search capability to the GreetingAgent [[slow:90]]' },
  { ...ordinary, prompt: 'Add an agent that checks facts [[slow:90]]' },
  { ...ordinary, prompt: 'Rename the GreetingAgent to WelcomeAgent [[slow:120]]' },
  { ...ordinary, prompt: 'Add e-mail to the GreetingAgent [[slow:60]][[turns:3]]' },
  { ...ordinary, prompt: 'Make greetings shorter [[slow:150]][[delete:/THE_SPEC/plan.md]]' },
  { ...ordinary, weight: 2, files: bigFiles, prompt: 'Add calendar access to the GreetingAgent [[slow:60]]' },
  {
    ...ordinary,
    weight: 1,
    prompt: 'Add web search [[slow:50]][[fail:fatal]]',
    failsWith: 'scripted_failure',
  },
  {
    ...ordinary,
    weight: 1,
    prompt: 'Add web search [[slow:20]][[fail:retryable]]',
    failsWith: 'scripted_failure',
    attempts: 4,
  },
];
