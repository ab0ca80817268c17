import { type AgentAt, castTextOf, definitionIn } from './definition-text.js';
import { castPathsOf, definitionPath } from './layout.js';
import { withBullet, withoutBullet } from './list-text.js';
import type { Workspace } from './workspace.js';

const section = 'Added tools';

/**
 * Brings an agent's page into agreement with its definition. A page that was made from the definition is
 * made anew; one that a person wrote only gets the lines that changed. No page is made where there is none.
 */
export function updateCast(before: AgentAt, files: Workspace): void {
  const path = castPathsOf(before.name)
    .map((candidate) => [candidate, files.read(candidate)] as const)
    .find(([, text]) => text !== null)?.[0];
  if (path === undefined) return;
  const text = files.read(path) ?? '';
  const after = definitionIn(files.read(definitionPath) ?? '')?.agents.find(
    ({ name }) => name === before.name,
  );
  if (after === undefined) return;
  if (text === shownText(castTextOf(before))) {
    files.write(path, shownText(castTextOf(after)));
    return;
  }
  let updated = text;
  for (const tool of after.tools ?? []) {
    if (!before.tools?.includes(tool)) updated = withBullet(updated, tool, /tools|capabilities/i, section);
  }
  for (const tool of before.tools ?? []) {
    if (!after.tools?.includes(tool)) updated = withoutBullet(updated, tool, section);
  }
  if (before.prompt && after.prompt !== null) {
    const at = updated.lastIndexOf(before.prompt);
    if (at >= 0) updated = updated.slice(0, at) + after.prompt + updated.slice(at + before.prompt.length);
  }
  files.write(path, updated);
}

/** The tool that reads files does not show a final newline. */
function shownText(text: string): string {
  return text.replace(/\n$/, '');
}
