import fs from 'node:fs';
import path from 'node:path';
import { makeDataFolder, readJsonFile, writeJsonFile } from './data-files.js';

/** Where the server of this clone is found, for the tools beside it. The token makes the file private. */
export interface ServerNote {
  url: string;
  token: string;
  pid: number;
}

const fileOf = (dataDir: string): string => path.join(dataDir, 'server.json');

export const writeServerNote = (dataDir: string, note: ServerNote): void =>
  writeJsonFile(fileOf(makeDataFolder(dataDir)), note);

export const readServerNote = (dataDir: string): ServerNote | undefined =>
  readJsonFile<ServerNote>(fileOf(dataDir));

/** Removes the note that this process wrote; another one's stays. */
export const removeServerNote = (dataDir: string, pid: number): void => {
  if (readServerNote(dataDir)?.pid === pid) fs.rmSync(fileOf(dataDir), { force: true });
};
