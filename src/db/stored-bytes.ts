import { promisify } from 'node:util';
import { gunzip, gzip, gzipSync } from 'node:zlib';

const gunzipAsync = promisify(gunzip);
const gzipAsync = promisify(gzip);

/** One frame as it goes to viewers, byte for byte. */
export interface StoredFrame {
  readonly seq: number;
  readonly bytes: Buffer;
}

/** gzip of a value's JSON, made at once: for use inside a transaction, which awaits only its own connection. */
export const packJson = (value: unknown): Buffer => gzipSync(JSON.stringify(value), { level: 1 });

/** The value that {@link packJson} packed. */
export const unpackJson = async (packed: Buffer): Promise<unknown> =>
  JSON.parse((await gunzipAsync(packed)).toString('utf8'));

/** gzip of a header line (JSON, with the number and length of each frame) and the frames' bytes, one after another. */
export const packFrames = async (header: object, frames: readonly StoredFrame[]): Promise<Buffer> => {
  const index = frames.map(({ seq, bytes }) => [seq, bytes.length]);
  const head = Buffer.from(`${JSON.stringify({ ...header, index })}\n`);
  return gzipAsync(Buffer.concat([head, ...frames.map((frame) => frame.bytes)]), { level: 1 });
};

/** The frames, and what else was in the header, that {@link packFrames} packed. */
export const unpackFrames = async (
  packed: Buffer,
): Promise<{ header: Record<string, unknown>; frames: StoredFrame[] }> => {
  const all = await gunzipAsync(packed);
  let offset = all.indexOf(10) + 1;
  const { index, ...header } = JSON.parse(all.toString('utf8', 0, offset)) as {
    index: [number, number][];
    [key: string]: unknown;
  };
  const frames = index.map(([seq, length]) => {
    const bytes = all.subarray(offset, offset + length);
    offset += length;
    return { seq, bytes };
  });
  return { header, frames };
};
