/** Where the files of a specification are. */
export const definitionPath = '/definition.json';
export const constitutionPath = '/THE_SPEC/constitution.md';
export const requirementsPath = '/THE_SPEC/requirements.md';
export const planPath = '/THE_SPEC/plan.md';
export const requestPath = '/user_request.md';

/** The page of an agent. */
export function castPathOf(name: string): string {
  // A name is free text in a definition; as a file it must not leave its folder.
  const safe = name
    .replace(/[/\\\p{Cc}]+/gu, '-')
    .replace(/^\.+/, '')
    .slice(0, 100);
  return `/THE_CAST/${safe === '' ? 'agent' : safe}.md`;
}

/** The pages that an agent may have: its name as it is, or without spaces. */
export function castPathsOf(name: string): string[] {
  return [...new Set([castPathOf(name), castPathOf(name.replace(/\s+/g, ''))])];
}
