import { changeAgents } from './agent-edits.js';
import { addCapability, removeCapability } from './capability-edits.js';
import type { SeenFile } from './conversation.js';
import { definitionIn } from './definition-text.js';
import type { Edit } from './edit-call.js';
import { constitutionPath, definitionPath, requestPath } from './layout.js';
import { createSpecification } from './new-specification.js';
import { noteWish } from './note-wish.js';
import type { Wish } from './wish.js';
import { createWorkspace, type Workspace } from './workspace.js';

/** What the script is going to do. */
export interface Plan {
  edits: Edit[];
  /** Sentences for the summary. */
  notes: string[];
  /** Files that must be read before it can be said. */
  missing: string[];
}

/**
 * The edits that fulfil the wishes, one after the other. Each is the smallest that does it, and one that
 * changes nothing where it was made before.
 *
 * @param deletes files to be deleted besides
 */
export function planOf(
  wishes: readonly Wish[],
  deletes: readonly string[],
  seen: ReadonlyMap<string, SeenFile>,
): Plan {
  const files = createWorkspace(seen);
  for (const wish of wishes) fulfil(wish, files);
  for (const path of deletes) if (files.read(path) !== null) files.write(path, null);
  const missing = files.missing();
  return missing.length > 0
    ? { edits: [], notes: [], missing }
    : { edits: files.edits(), notes: files.notes(), missing };
}

function fulfil(wish: Wish, files: Workspace): void {
  files.read(constitutionPath);
  let text = files.read(definitionPath);
  if (files.missing().length > 0) return;
  if (text === null && files.isAbsent(definitionPath)) {
    createSpecification(wish, files);
    text = files.read(definitionPath);
  }
  const definition = text === null ? null : definitionIn(text);
  if (text === null || definition === null) {
    if (text !== null)
      files.note(`${definitionPath} holds no agents that can be read; it was left as it is.`);
    noteWish(wish, files);
    return;
  }
  switch (wish.kind) {
    case 'add-capability':
      addCapability(wish, definition, files);
      break;
    case 'remove-capability':
      removeCapability(wish, definition, files);
      break;
    case 'create-workflow':
      // Asked for once more, the workflow is there already.
      if (!files.read(requestPath)?.includes(wish.text)) noteWish(wish, files);
      break;
    default:
      changeAgents(wish, definition, files);
  }
}
