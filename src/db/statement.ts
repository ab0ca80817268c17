import { type QuerySqlToken, sql, type ValueExpression } from 'slonik';
import { z } from 'zod';

/** A statement that answers with no row of interest. */
export const noRow = z.object({});

/**
 * Builds a statement that carries its name in a comment at its head, where the pool's interceptor reads it for
 * `db_query_duration_seconds{query}` and an operator in `pg_stat_activity`.
 *
 * @param name snake_case, one per statement, never holding an id
 * @param schema zod 3 schema of one row; columns that it does not name are dropped
 */
export const named =
  <T extends z.ZodTypeAny>(name: string, schema: T) =>
  (parts: TemplateStringsArray, ...values: ValueExpression[]): QuerySqlToken<T> => {
    const token = sql.type(schema)(parts, ...values);
    return Object.freeze({ ...token, sql: `/* ${name} */ ${token.sql}` });
  };

/** The name that {@link named} gave to a statement; `other` for Slonik's own (BEGIN, COMMIT, …). */
export const nameOf = (text: string): string => /^\/\* ([a-z_]+) \*\//.exec(text)?.[1] ?? 'other';

/** A JSON parameter. Bound as text and cast by PostgreSQL: much cheaper for megabytes than Slonik's own JSON token. */
export const jsonOf = (value: unknown): string | null =>
  value === null || value === undefined ? null : JSON.stringify(value);

/** A `bytea` parameter, or NULL. */
export const bytesOf = (value: Buffer | null): ValueExpression => (value === null ? null : sql.binary(value));
