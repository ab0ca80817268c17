import pg from 'pg';
import { withConnection } from './brief-connection.js';

const codeOf = (error: unknown): unknown =>
  typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;

const CONNECT_MS = 5_000;
const optionsOf = (url: string): pg.ClientConfig => ({
  connectionString: url,
  connectionTimeoutMillis: CONNECT_MS,
});

/**
 * Creates the database that the URL names, if it is missing and the role may.
 *
 * @returns true where it was created
 * @throws what `pg` throws where the server cannot be reached or the role may not
 */
export const ensureDatabase = async (url: string): Promise<boolean> => {
  try {
    await withConnection(optionsOf(url), async () => undefined);
    return false;
  } catch (error) {
    if (codeOf(error) !== '3D000') throw error;
  }
  const maintenance = new URL(url);
  const name = decodeURIComponent(maintenance.pathname.slice(1));
  maintenance.pathname = '/postgres';
  return withConnection(optionsOf(maintenance.toString()), async (client) => {
    try {
      await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`);
      return true;
    } catch (error) {
      // Another process was faster: 42P04, or 23505 where both were under way.
      if (codeOf(error) === '42P04' || codeOf(error) === '23505') return false;
      throw error;
    }
  });
};
