/**
 * `npm run refine -- "prompt"`: one refinement in the terminal, against the server of this clone or any other.
 */
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { readServerNote } from '../src/embedded/server-note.js';
import { refine } from './refine/refine.js';

interface Flags {
  url?: string;
  token?: string;
  workflow?: string;
  approve?: true;
  publish?: true;
}

const dataDir = fileURLToPath(new URL('../../.data', import.meta.url));

const ask = async (question: string): Promise<string | undefined> => {
  const prompt = createInterface({ input: process.stdin, output: process.stdout });
  // Where the input ends without a line, readline's own promise would never settle.
  const ended = new Promise<undefined>((resolve) => prompt.once('close', () => resolve(undefined)));
  try {
    return await Promise.race([prompt.question(question), ended]);
  } finally {
    prompt.close();
  }
};

const run = async (prompt: string, flags: Flags): Promise<void> => {
  const note = readServerNote(dataDir);
  const url = flags.url ?? note?.url;
  // The note's token is for the note's server; no other gets to see it.
  const token = flags.token ?? (flags.url === undefined || flags.url === note?.url ? note?.token : undefined);
  if (url === undefined)
    throw new Error('No server is running here: "npm start" starts one, or name one with --url.');
  if (token === undefined) throw new Error('This server needs --token.');
  const options = {
    prompt,
    url,
    token,
    approve: flags.approve === true,
    publish: flags.publish === true,
    ...(flags.workflow === undefined ? {} : { workflowId: flags.workflow }),
  };
  const colours = process.stdout.isTTY === true && process.stdout.hasColors();
  const terminal = { write: (text: string) => void process.stdout.write(text), colours };
  if (!(await refine(options, { terminal, ask }))) process.exitCode = 1;
};

const program = new Command('refine')
  .description('Refines a workflow: streams the run, shows the diff, approves and publishes it.')
  .argument('<prompt>', 'what should change')
  .option('--url <origin>', 'the server (default: the one that "npm start" runs here)')
  .option('--token <jwt>', 'the token to show it')
  .option('--workflow <id>', 'the workflow (default: your newest, or a sample that is made)')
  .option('--approve', 'approve without asking')
  .option('--publish', 'publish the draft after the approval')
  .action(run);

try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
