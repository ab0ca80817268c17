/** Limits that both sides of a contract know. Those of the REST API are defaults; each is a variable. */
export const limits = {
  bodyBytes: 8 * 1024 * 1024,
  userPromptCharacters: 20_000,
  contextSelectionBytes: 64 * 1024,
  files: 500,
  fileBytes: 8 * 1024 * 1024,
  /** All texts of a draft: as much as the state update that carries them to and fro. Beyond, no run could end well. */
  draftBytes: 16 * 1024 * 1024,
  pathCharacters: 512,
  pageSize: 100,
  defaultPageSize: 20,
  nameCharacters: 200,
  descriptionCharacters: 2_000,
  reasonCharacters: 2_000,
  userIdCharacters: 255,
  runtimeThreadIdCharacters: 255,
  idempotencyKeyCharacters: 255,
  viewerMessageBytes: 64 * 1024,
  runtimeFrameBytes: 16 * 1024 * 1024,
  maxAttempts: 4,
} as const;
