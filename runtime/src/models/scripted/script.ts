import type { BaseMessage } from '@langchain/core/messages';

import { type Conversation, conversationOf } from './conversation.js';
import { type Edit, editCallOf } from './edit-call.js';
import { type Plan, planOf } from './plan.js';
import type { ScriptTools } from './script-tools.js';
import { subagentTurnOf, taskWithEdits } from './subagent-script.js';

/** What the script says and does in one turn of the model. */
export interface Turn {
  text: string;
  calls: { name: string; args: Record<string, unknown> }[];
  /** Ids of the calls are made from it. */
  key: string;
  /** Milliseconds before each chunk, where the prompt asks for its own pace. */
  chunkDelayMs?: number;
  /** What happens after the text instead of the turn's end. */
  ending?: 'fail-retryable' | 'fail-fatal' | 'stall';
}

type Step = Pick<Turn, 'text' | 'calls'>;

/** More lines than any file has: the tool would otherwise show the first hundred. */
const allLines = 100_000;

/**
 * The next turn of the script, from the messages alone.
 *
 * @param tools null: not told, so the script does all the work itself
 */
export function nextTurnOf(messages: readonly BaseMessage[], tools: ScriptTools | null): Turn {
  if (tools !== null && !tools.names.has('task')) return subagentTurnOf(messages);
  const talk = conversationOf(messages);
  const { directives, turns, key } = talk;
  const pace = directives.slow === null ? {} : { chunkDelayMs: directives.slow };
  if (turns.length === 1 && directives.fail !== null) {
    return {
      key,
      ...pace,
      text: 'The script was asked to fail now.',
      calls: [],
      ending: `fail-${directives.fail}`,
    };
  }
  if (turns.length === 1 && directives.stall) {
    return { key, ...pace, text: 'The script was asked to stall now.', calls: [], ending: 'stall' };
  }
  return { key, ...pace, ...stepOf(talk, tools) };
}

function stepOf(talk: Conversation, tools: ScriptTools | null): Step {
  const { wishes, directives, turns, seen } = talk;
  const intents = wishes.map(({ intent }) => intent).join('; then ');
  if (directives.nofiles) {
    return {
      text: 'This is a script, not a language model. It was asked to end without touching a file.',
      calls: [],
    };
  }
  if (turns.length === 0) {
    return {
      text: `This is a script, not a language model. What it understood: ${intents}.`,
      calls: [todos(todoTexts, 0)],
    };
  }
  const plan = planOf(wishes, directives.deletes, seen);
  if (plan.missing.length > 0) {
    return {
      text: `Reading ${plan.missing.join(', ')}.`,
      calls: plan.missing.map((path) => ({
        name: 'read_file',
        args: { file_path: path, offset: 0, limit: allLines },
      })),
    };
  }
  const reads = turns.filter((turn) => turn.reads).length;
  const steps = stepsOf(plan, talk, tools);
  return steps[turns.length - 1 - reads] ?? summaryOf(plan, intents);
}

const todoTexts = [
  'Understand the request and read the specification',
  'Check the request and its impact',
  'Write the specification and the cast',
  'Write the definition',
  'Verify the result',
];

/** The turns between reading and the summary, in order. */
function stepsOf(plan: Plan, talk: Conversation, tools: ScriptTools | null): Step[] {
  const agent = (...words: string[]) =>
    tools?.subagents.find((name) => words.some((word) => name.includes(word))) ?? null;
  const intents = talk.wishes.map(({ intent }) => intent).join('; then ');
  const steps: Step[] = [];
  const checks = [
    [agent('guardrail'), `Check whether this may be done: ${intents}.`],
    [agent('impact'), `Find what this touches: ${intents}.`],
  ].flatMap(([name, task]) => (name ? [taskCall(name, String(task))] : []));
  if (plan.edits.length > 0) {
    if (checks.length > 0) steps.push({ text: 'Asking for a check of the request.', calls: checks });
    const cast = plan.edits.filter(({ path }) => path.startsWith('/THE_CAST/'));
    const definition = plan.edits.filter(({ path }) => path === '/definition.json');
    const texts = plan.edits.filter((edit) => !cast.includes(edit) && !definition.includes(edit));
    const specWriter = agent('specification-writ', 'spec-writ', 'specification');
    const castWriter = agent('agent-writ', 'cast', 'multi-agent') ?? specWriter ?? agent('general-purpose');
    const calls = [...editCalls(texts, specWriter), ...editCalls(cast, castWriter)];
    if (calls.length > 0) steps.push({ text: `Writing ${pathsOf([...texts, ...cast])}.`, calls });
    if (definition.length > 0) {
      steps.push({
        text: 'Writing the definition, so that it agrees with the rest.',
        calls: editCalls(definition, null),
      });
    }
  }
  for (let turn = 1; turn <= talk.directives.turns; turn += 1) {
    steps.push({
      text: `Extra turn ${turn} of ${talk.directives.turns}.`,
      calls: [{ name: 'ls', args: { path: '/' } }],
    });
  }
  const verifier = agent('verif', 'valid');
  const verify =
    verifier && plan.edits.length > 0 ? [taskCall(verifier, `Verify the result of: ${intents}.`)] : [];
  steps.push({ text: 'Checking the result.', calls: [...verify, todos(todoTexts, todoTexts.length)] });
  return steps;
}

function summaryOf(plan: Plan, intents: string): Step {
  const changes = plan.edits.map(({ path, before, after }) =>
    after === null ? `- ${path} (deleted)` : `- ${path} (${before === null ? 'new' : 'changed'})`,
  );
  const files = changes.length === 0 ? 'No file had to change.' : `Changed files:\n${changes.join('\n')}`;
  const notes = plan.notes.length === 0 ? '' : `\n\n${plan.notes.join('\n')}`;
  return { text: `Done by a script, without a language model: ${intents}.\n\n${files}${notes}`, calls: [] };
}

function editCalls(edits: readonly Edit[], delegate: string | null): Turn['calls'] {
  if (edits.length === 0) return [];
  return delegate === null
    ? edits.map(editCallOf)
    : [taskCall(delegate, taskWithEdits(edits.map(editCallOf)))];
}

function taskCall(agent: string, description: string): Turn['calls'][number] {
  return { name: 'task', args: { description, subagent_type: agent } };
}

function todos(texts: readonly string[], done: number): Turn['calls'][number] {
  const status = (at: number) => (at < done ? 'completed' : at === done ? 'in_progress' : 'pending');
  return {
    name: 'write_todos',
    args: { todos: texts.map((content, at) => ({ content, status: status(at) })) },
  };
}

function pathsOf(edits: readonly Edit[]): string {
  return edits.map(({ path }) => path).join(', ');
}
