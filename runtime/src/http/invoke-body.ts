import { cloudEventType, type InvokeRequest, invokeRequest } from '@ide-orchestrator/protocol';
import { type CloudEvent, HTTP } from 'cloudevents';
import secureJson from 'secure-json-parse';
import { Problem } from '../errors.js';

/** A job as it came in, and the trace that its event names (the header's goes first). */
export interface DecodedInvoke {
  request: InvokeRequest;
  traceparent: string | null;
}

/**
 * Reads a job: plain JSON, or a CloudEvent in structured or binary mode.
 * @throws {Problem} unsupported_media_type, malformed_json, malformed_event, validation_failed.
 */
export function decodeInvoke(headers: Readonly<Record<string, string>>, body: Buffer): DecodedInvoke {
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  const isStructured = type.startsWith('application/cloudevents');
  const isBinary = !isStructured && 'ce-id' in headers;
  if (!isStructured && type !== 'application/json')
    throw new Problem('unsupported_media_type', 'Send application/json or a CloudEvent');
  const json = decodeJson(body);
  const traceparent = headers.traceparent ?? null;
  if (!isStructured && !isBinary) return { request: decodeJob(json), traceparent };

  const event = decodeEvent(headers, body);
  if (event.type !== cloudEventType)
    throw new Problem('malformed_event', `The event's type must be ${cloudEventType}`);
  const extension = typeof event.traceparent === 'string' ? event.traceparent : null;
  return { request: decodeJob(event.data), traceparent: traceparent ?? extension };
}

function decodeJson(body: Buffer): unknown {
  try {
    // Refuses keys that would change prototypes.
    return secureJson.parse(body.toString('utf8'));
  } catch (thrown) {
    throw new Problem('malformed_json', 'The body is not valid JSON', { cause: thrown });
  }
}

function decodeEvent(headers: Readonly<Record<string, string>>, body: Buffer): CloudEvent<unknown> {
  try {
    const event = HTTP.toEvent<unknown>({ headers: { ...headers }, body: body.toString('utf8') });
    if (Array.isArray(event)) throw new Problem('malformed_event', 'Send one event at a time');
    const single = event as CloudEvent<unknown>;
    // The package takes any version that it is told.
    if (single.specversion !== '1.0' || !single.validate())
      throw new Problem('malformed_event', 'The event must be a CloudEvent 1.0');
    return single;
  } catch (thrown) {
    if (thrown instanceof Problem) throw thrown;
    throw new Problem('malformed_event', 'The body is not a CloudEvent 1.0', { cause: thrown });
  }
}

function decodeJob(value: unknown): InvokeRequest {
  const result = invokeRequest.safeParse(value);
  if (result.success) return result.data;
  const faults = result.error.issues
    .slice(0, 5)
    .map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`);
  throw new Problem('validation_failed', faults.join('; '));
}
