import pg from 'pg';

/** SQLSTATE of a connection to a database that does not exist. */
const noSuchDatabase = '3D000';
const existsAlready = '42P04';

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

const withClient = async (url: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
};

/** The same server, credentials and options with another database. */
export const withDatabase = (url: string, database: string): string => {
  const other = new URL(url);
  other.pathname = `/${encodeURIComponent(database)}`;
  return other.href;
};

/**
 * Makes the database that the URL names where the server has none of that name and the role may.
 * Rejects with the server's error where it cannot be reached, refuses the role, or the role may not create it.
 */
export const ensureDatabase = async (url: string): Promise<void> => {
  try {
    await withClient(url, (client) => client.query('SELECT 1'));
  } catch (error) {
    if (codeOf(error) !== noSuchDatabase) throw error;
    const name = decodeURIComponent(new URL(url).pathname.slice(1));
    await withClient(withDatabase(url, 'postgres'), async (client) => {
      try {
        await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
      } catch (cause) {
        // Two that start together both want it.
        if (codeOf(cause) === existsAlready || codeOf(cause) === '23505') return;
        throw new Error(`The database "${name}" is missing and this role may not create it`, { cause });
      }
    });
  }
};
