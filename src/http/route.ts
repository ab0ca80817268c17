import type { HttpErrorCode } from '@ide-orchestrator/protocol';
import type { CommonQueryMethods } from 'slonik';
import type { z } from 'zod/v4';
import type { Identity } from './authenticate.js';

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** How a key of the caller makes a POST repeatable: `answer` stores the answer, `proposal` lets the key name the proposal, `none` needs no key. */
type Idempotency = 'answer' | 'proposal' | 'none';

/** One request as a handler sees it: read, authenticated, validated. */
export interface Call<Body, Query> {
  params: Readonly<Record<string, string>>;
  body: Body;
  query: Query;
  identity: Identity;
  /** Where statements go: the pool, or the transaction that stores the answer under its key. */
  db: CommonQueryMethods;
  key: IdempotencyKey | null;
  requestId: string;
  /**
   * For whatever is not in the database: runs once `db` has committed. A transaction may be run again, or be rolled back.
   */
  afterCommit(effect: () => void): void;
}

/** The caller's `Idempotency-Key`, where it sent one. */
export interface IdempotencyKey {
  key: string;
  route: string;
  /** Over the concrete path and the parsed body, so that one key cannot answer for two things. */
  bodyHash: string;
}

export interface Answer {
  status: number;
  /** Undefined sends none. */
  body?: unknown;
  headers?: Record<string, string>;
}

/** One line of the table: routing, validation, documents and idempotency all come from it. */
export interface Route {
  method: Method;
  /** With parameters in braces. Those that end in `_id` are UUIDs, except `user_id`. */
  path: string;
  /** Unique name of the operation in the documents. */
  name: string;
  summary: string;
  tag: string;
  /** `token`: a valid bearer token. `open`: counted by address. `probe`: never refused. */
  access: 'token' | 'open' | 'probe';
  body?: z.ZodType;
  query?: z.ZodType;
  /** Status of success → schema of its body, null for none, a media type for documents. */
  answers: Record<number, z.ZodType | string | null>;
  /** Codes of the catalogue that this call can answer, beyond those that every call can. */
  errors: readonly HttpErrorCode[];
  idempotency: Idempotency;
  /** True where the handler takes its own place at the database, because it also waits for something else. */
  waitsElsewhere: boolean;
  handle(call: Call<unknown, unknown>): Promise<Answer>;
}

type Parsed<T extends z.ZodType | undefined> = T extends z.ZodType ? z.output<T> : undefined;

/** Makes a line of the table; the handler's body and query have the types of their schemas. */
export function route<
  B extends z.ZodType | undefined = undefined,
  Q extends z.ZodType | undefined = undefined,
>(
  line: Omit<Route, 'handle' | 'body' | 'query' | 'errors' | 'idempotency' | 'waitsElsewhere' | 'access'> &
    Partial<Pick<Route, 'errors' | 'idempotency' | 'waitsElsewhere' | 'access'>> & {
      body?: B;
      query?: Q;
      handle(call: Call<Parsed<B>, Parsed<Q>>): Promise<Answer>;
    },
): Route {
  const { body, query, handle, ...rest } = line;
  return {
    errors: [],
    idempotency: 'none',
    waitsElsewhere: false,
    access: 'token',
    ...rest,
    ...(body === undefined ? {} : { body }),
    ...(query === undefined ? {} : { query }),
    // Sound because dispatch parses with these very schemas before it calls.
    handle: handle as Route['handle'],
  };
}
