import type { z } from 'zod/v4';
import { AppError } from '../errors.js';

const reported = 100;

/** Parses with the schema of the contract; throws AppError `validation_failed` with every fault (at most 100). */
export function parsedWith<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const faults: { path: string; message: string }[] = [];
  for (const issue of result.error.issues) {
    const path = issue.path.map(String).join('.');
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys)
        faults.push({ path: path === '' ? key : `${path}.${key}`, message: 'is not known' });
    } else {
      faults.push({ path, message: issue.message });
    }
    if (faults.length >= reported) break;
  }
  throw new AppError('validation_failed', 'Some fields break the contract.', {
    errors: faults.slice(0, reported),
  });
}

/** The query as an object; a name that comes twice becomes a list, which no schema admits. */
export function queryOf(query: string): Record<string, string | string[]> {
  const found: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of new URLSearchParams(query)) {
    const before = found[name];
    found[name] = before === undefined ? value : [before, value].flat();
  }
  return { ...found };
}
