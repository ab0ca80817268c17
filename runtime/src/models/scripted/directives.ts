/**
 * Directives that tests put into a prompt to make the scripted model misbehave:
 *
 * - `[[fail:retryable]]`, `[[fail:fatal]]`: fails in the second turn, after the to-do list is there
 * - `[[stall]]`: streams nothing more from the second turn on, until the run is aborted
 * - `[[slow:50]]`: waits so many milliseconds before each chunk
 * - `[[turns:3]]`: so many more turns before the summary
 * - `[[nofiles]]`: ends without touching a file
 * - `[[delete:/path]]`: deletes a file (may stand several times)
 */
export interface Directives {
  fail: 'retryable' | 'fatal' | null;
  stall: boolean;
  /** Milliseconds before each chunk, where given. */
  slow: number | null;
  turns: number;
  nofiles: boolean;
  deletes: string[];
}

const directive = /\[\[(fail|stall|slow|turns|nofiles|delete)(?::([^\]]*))?\]\]/g;

/** Splits a prompt into its directives and the text without them. */
export function directivesOf(prompt: string): { directives: Directives; text: string } {
  const found: Directives = { fail: null, stall: false, slow: null, turns: 0, nofiles: false, deletes: [] };
  const text = prompt.replace(directive, (whole, name: string, value = '') => {
    const number = Number.parseInt(value, 10);
    if (name === 'fail') found.fail = value === 'fatal' ? 'fatal' : 'retryable';
    else if (name === 'stall') found.stall = true;
    else if (name === 'nofiles') found.nofiles = true;
    else if (name === 'delete' && value !== '') found.deletes.push(value.trim());
    else if (name === 'slow' && number >= 0) found.slow = number;
    else if (name === 'turns' && number >= 0) found.turns = number;
    else return whole;
    return '';
  });
  return { directives: found, text: text.replace(/[ \t]{2,}/g, ' ').trim() };
}
