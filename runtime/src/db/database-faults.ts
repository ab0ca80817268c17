/** SQLSTATE of a PostgreSQL error; null for anything else, such as a lost connection. */
export function sqlStateOf(error: unknown): string | null {
  if (typeof error !== 'object' || error === null || !('code' in error)) return null;
  return typeof error.code === 'string' && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : null;
}

/**
 * Whether a failed statement may succeed when it is repeated: no answer, a server that is starting or
 * stopping, full, or a lost race. A refusal of the content (classes 22, 23, 54) or of the statement
 * itself (42) is final, and so is what did not come from a connection at all.
 */
export function isPassing(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state !== null && !/^E[A-Z]{4}$/.test(state))
    return !['22', '23', '42', '54'].includes(state.slice(0, 2));
  if (!(error instanceof Error)) return false;
  if ('code' in error && typeof error.code === 'string' && error.code.startsWith('E')) return true;
  // pg's own errors of a lost or unanswered connection carry no code.
  return /connect|terminated|timeout/i.test(error.message) || isPassing(error.cause);
}
