import type { ProposalDiff } from '@ide-orchestrator/protocol';
import { paint, printable, type Terminal } from './run-view.js';

const colourOf = (line: string): 'green' | 'red' | undefined =>
  line.startsWith('+') ? 'green' : line.startsWith('-') ? 'red' : undefined;

/** The diff as a unified text; files that the run left as they were are not named. */
export const diffText = (terminal: Terminal, diff: ProposalDiff): string => {
  const changed = diff.files.filter((file) => file.status !== 'unchanged');
  if (changed.length === 0) return 'Nothing differs from the draft.';
  return changed
    .map((file) => {
      const head = paint(
        terminal,
        file.status === 'conflict' ? 'yellow' : 'cyan',
        `${file.status} ${printable(file.path)}`,
      );
      const hunks = file.hunks.map((hunk) => {
        const range = `@@ -${hunk.old_start},${hunk.old_lines} +${hunk.new_start},${hunk.new_lines} @@`;
        const lines = hunk.lines.map((line) => {
          const colour = colourOf(line);
          return colour === undefined ? printable(line) : paint(terminal, colour, printable(line));
        });
        return [paint(terminal, 'dim', range), ...lines].join('\n');
      });
      return [head, ...hunks].join('\n');
    })
    .join('\n\n');
};
