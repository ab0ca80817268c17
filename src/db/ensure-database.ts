import pg from 'pg';

const codeOf = (error: unknown): unknown =>
  typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;

const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  // The end of a connection that the server cuts is reported by the query that waits for it.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
};

/**
 * Creates the database that the URL names, if it is missing and the role may.
 *
 * @returns true where it was created
 * @throws what `pg` throws where the server cannot be reached or the role may not
 */
export const ensureDatabase = async (url: string): Promise<boolean> => {
  try {
    await withClient(url, async () => undefined);
    return false;
  } catch (error) {
    if (codeOf(error) !== '3D000') throw error;
  }
  const maintenance = new URL(url);
  const name = decodeURIComponent(maintenance.pathname.slice(1));
  maintenance.pathname = '/postgres';
  return withClient(maintenance.toString(), async (client) => {
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
