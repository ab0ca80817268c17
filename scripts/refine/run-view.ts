import type { StreamFrame } from './follow-run.js';

export interface Terminal {
  write(text: string): void;
  /** Whether colours may be used. */
  colours: boolean;
}

const colourCodes = { dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

export const paint = (terminal: Terminal, colour: keyof typeof colourCodes, text: string): string =>
  terminal.colours ? `\u001b[${colourCodes[colour]}m${text}\u001b[0m` : text;

/** What a model writes must not move the cursor, change the title or clear the screen. */
export const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');

const todoMarks: Record<string, string> = { completed: '[x]', in_progress: '[>]', pending: '[ ]' };

/** So many tokens of others in a row say that an agent has finished speaking. */
const QUIET_TOKENS = 4;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const textOf = (file: unknown): string | null | undefined => {
  if (file === null) return null;
  if (!isObject(file) || !Array.isArray(file.content)) return undefined;
  return file.content.join('\n');
};

/**
 * Shows a run as it happens: tokens as one flowing text, the to-dos when they change, a line for each file that
 * becomes different from the draft or from what was shown of it before.
 */
export const createRunView = (terminal: Terminal, draftFiles: Readonly<Record<string, string>>) => {
  const shown = new Map<string, string | null>(Object.entries(draftFiles));
  let todosShown = '';
  let inText = false;
  let message: unknown;
  /** Texts of agents that speak at the same time: one is shown as it comes, the others wait for their turn. */
  const held = new Map<unknown, string>();
  let heldSince = 0;

  const endText = (): void => {
    if (inText) terminal.write('\n');
    inText = false;
    for (const text of held.values()) terminal.write(`\n${text}\n`);
    held.clear();
    heldSince = 0;
  };
  const line = (text: string): void => {
    endText();
    terminal.write(`${text}\n`);
  };
  const note = (text: string): void => line(paint(terminal, 'dim', `… ${text}`));

  const showToken = (data: Record<string, unknown>): void => {
    if (typeof data.content !== 'string' || data.content === '') return;
    const text = printable(data.content);
    if (!inText) message = data.message_id;
    if (data.message_id === message) {
      heldSince = 0;
      terminal.write(text);
      inText = true;
      return;
    }
    held.set(data.message_id, (held.get(data.message_id) ?? '') + text);
    if (++heldSince < QUIET_TOKENS) return;
    // The one that was shown has fallen silent: the next one has the floor.
    message = data.message_id;
    terminal.write(`\n\n${held.get(message) ?? ''}`);
    held.delete(message);
    heldSince = 0;
  };

  const showTodos = (todos: unknown): void => {
    if (!Array.isArray(todos)) return;
    const rows = todos.filter(isObject).map((todo) => {
      const mark = todoMarks[String(todo.status)] ?? '[ ]';
      return `  ${mark} ${printable(String(todo.content ?? ''))}`;
    });
    const text = rows.join('\n');
    if (text === todosShown || text === '') return;
    todosShown = text;
    line(paint(terminal, 'cyan', text));
  };

  const showFiles = (files: unknown): void => {
    if (!isObject(files)) return;
    for (const [path, file] of Object.entries(files)) {
      const text = textOf(file);
      const before = shown.get(path);
      if (text === undefined || text === before || (text === null && before === undefined)) continue;
      shown.set(path, text);
      const name = printable(path);
      if (text === null) line(paint(terminal, 'red', `  - ${name}`));
      else {
        const count = `${text.split('\n').length} lines`;
        line(paint(terminal, 'green', `  ${typeof before === 'string' ? '~' : '+'} ${name} (${count})`));
      }
    }
  };

  return {
    note,
    line,
    show: (frame: StreamFrame): void => {
      const { data } = frame;
      if (frame.event_type === 'on_llm_stream') showToken(data);
      else if (frame.event_type === 'on_state_update') {
        showTodos(data.todos);
        showFiles(data.files);
      } else if (frame.event_type === 'on_retry') note(`attempt ${data.attempt} of ${data.max} follows`);
      else if (frame.event_type === 'on_reset') note('the run goes on from its last saved state');
      else if (frame.event_type === 'on_reconnecting') note('the runtime cannot be reached, waiting for it');
      else if (frame.event_type === 'on_skipped')
        note('some of the text was left out, this reader was away or slow');
      else if (frame.event_type === 'error')
        line(paint(terminal, 'red', `error: ${printable(String(data.message))}`));
      else if (frame.event_type === 'end') endText();
    },
  };
};
