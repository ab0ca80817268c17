import fs from 'node:fs';
import path from 'node:path';

/**
 * Makes the folder for what this clone keeps. Others may pass through but not look: as root PostgreSQL runs as
 * another user below it. What is secret in it is private by itself.
 */
export const makeDataFolder = (dataDir: string): string => {
  const folder = path.resolve(dataDir);
  fs.mkdirSync(folder, { recursive: true, mode: 0o711 });
  return folder;
};

/** A JSON file's content, undefined when it is absent or cut off. Its writer is this program, so it is trusted. */
export const readJsonFile = <T>(file: string): T | undefined => {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as T;
  } catch {
    return undefined;
  }
};

/** Replaces the file at once, readable by its owner alone, so that a reader never sees half of it. */
export const writePrivateFile = (file: string, text: string): void => {
  const temporary = `${file}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, text, { mode: 0o600 });
  fs.renameSync(temporary, file);
};

export const writeJsonFile = (file: string, value: unknown): void =>
  writePrivateFile(file, `${JSON.stringify(value, null, 2)}\n`);
