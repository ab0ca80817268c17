import pg from 'pg';

/** Runs `work` on a `pg` connection of its own, which is closed behind it: where there is no pool yet, or none for this. */
export const withConnection = async <Result>(
  options: pg.ClientConfig,
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> => {
  const client = new pg.Client(options);
  // A connection that the server cuts rejects the query that waits; the event says it once more, and with no listener it
  // ends the process past every catch.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
};
