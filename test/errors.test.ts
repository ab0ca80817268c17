import { httpErrors, problem } from '@ide-orchestrator/protocol';
import { test } from 'tap';
import { AppError, problemOf, toError } from '../src/errors.js';

const context = { instance: '/api/proposals/1', requestId: 'r-1' };

test('a refusal becomes problem+json with the catalogue’s status and title', async (t) => {
  const errors = [{ path: '/name', message: 'is required' }];
  const answer = problemOf(
    new AppError('validation_failed', 'The body breaks the schema.', { errors }),
    context,
  );
  t.same(answer, {
    status: 422,
    body: {
      type: 'urn:ide-orchestrator:error:validation_failed',
      title: httpErrors.validation_failed.title,
      status: 422,
      code: 'validation_failed',
      detail: 'The body breaks the schema.',
      instance: '/api/proposals/1',
      request_id: 'r-1',
      errors,
    },
    retryAfterSeconds: null,
  });
  const conflict = problemOf(new AppError('draft_conflict', 'x', { conflicts: ['/a'] }), context);
  t.same(conflict.body.conflicts, ['/a']);
});

test('every code of the catalogue makes a body that keeps the contract', async (t) => {
  for (const code of Object.keys(httpErrors) as (keyof typeof httpErrors)[]) {
    const { status, body, retryAfterSeconds } = problemOf(new AppError(code, 'x'), context);
    t.equal(problem.parse(body).code, code);
    t.equal(status, httpErrors[code].status);
    t.equal(retryAfterSeconds !== null, status === 429 || status === 503, `Retry-After of ${code}`);
  }
  t.equal(
    problemOf(new AppError('rate_limited', 'x', { retryAfterSeconds: 9 }), context).retryAfterSeconds,
    9,
  );
});

test('an unknown error tells the caller nothing of itself', async (t) => {
  const { status, body } = problemOf(new Error('relation "users" does not exist'), context);
  t.equal(status, 500);
  t.equal(body.code, 'internal_error');
  t.notMatch(JSON.stringify(body), /users/);
});

test('whatever is thrown becomes an Error', async (t) => {
  const error = new AppError('not_found', 'x', { cause: 'y' });
  t.equal(toError(error), error);
  t.equal(error.cause, 'y');
  t.equal(toError('words').message, 'words');
  t.same(toError({ a: 1 }).cause, { a: 1 });
});
