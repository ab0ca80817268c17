import secureJson from 'secure-json-parse';
import { AppError } from '../errors.js';
import { outlineFault } from './json-shape.js';
import type { RequestHead } from './request-head.js';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * The JSON value of a body; `{}` where there is none.
 * Throws AppError: `unsupported_media_type`, `malformed_json` (also for bytes that are not UTF-8 and for
 * keys that would reach into prototypes), `validation_failed` for what is deeper or has more members than any contract.
 */
export function jsonOf(bytes: Buffer, head: RequestHead): unknown {
  if (bytes.length === 0) return {};
  const type = head.headers['content-type'];
  if (type === undefined || !isJsonType(type)) {
    throw new AppError('unsupported_media_type', 'The body must be sent as application/json in UTF-8.');
  }
  const fault = outlineFault(bytes);
  if (fault !== null) {
    throw new AppError('validation_failed', 'The body breaks the contract.', {
      errors: [{ path: '', message: fault }],
    });
  }
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch (cause) {
    throw new AppError('malformed_json', 'The body is not valid UTF-8.', { cause });
  }
  try {
    return secureJson.parse(text, undefined, { protoAction: 'error', constructorAction: 'error' });
  } catch (cause) {
    throw new AppError('malformed_json', 'The body is not valid JSON.', { cause });
  }
}

function isJsonType(value: string): boolean {
  const [essence = '', ...parameters] = value.split(';').map((part) => part.trim().toLowerCase());
  if (essence !== 'application/json' && !/^application\/[\w.-]+\+json$/.test(essence)) return false;
  return parameters.every((parameter) => {
    const [name, charset] = parameter.split('=');
    return name !== 'charset' || charset?.replaceAll('"', '') === 'utf-8' || charset === 'utf8';
  });
}
